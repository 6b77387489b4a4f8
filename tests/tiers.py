"""The tiers: tests that need a GPU or a cluster run where there is one, and are said not to have run elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest


def _count_gpus() -> int:
    if shutil.which("nvidia-smi") is None:
        return 0
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    return sum(line.startswith("GPU ") for line in listed.splitlines())


# What a tier needs, and whether this machine has it. No torch here: most runs need none.
TIERS = {
    "gpu": ("an NVIDIA GPU (nvidia-smi)", lambda: shutil.which("nvidia-smi") is not None),
    "multi_gpu": ("two NVIDIA GPUs (nvidia-smi -L)", lambda: _count_gpus() > 1),
    "cluster": ("a Kubernetes cluster (KUBECONFIG)", lambda: bool(os.environ.get("KUBECONFIG"))),
}
_left_out = pytest.StashKey[dict[str, int]]()


def pytest_collection_modifyitems(config, items):
    """Leave out what this machine cannot run."""
    left_out: dict[str, int] = {}
    for tier, (_, is_there) in TIERS.items():
        without = [item for item in items if item.get_closest_marker(tier)]
        if not without or is_there():
            continue
        left_out[tier] = len(without)
        config.hook.pytest_deselected(items=without)
        items[:] = [item for item in items if item not in without]
    config.stash[_left_out] = left_out
    if hasattr(config, "workeroutput"):
        config.workeroutput["left_out"] = left_out


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """With several workers, each has collected the same: what one of them left out is what was left out."""
    said = getattr(node, "workeroutput", {})
    # A worker that crashed says nothing; another one does.
    if "left_out" in said:
        node.config.stash[_left_out] = said["left_out"]


def pytest_sessionfinish(session):
    """Whoever asked for a tier by name gets an error in place of nothing."""
    if session.config.option.markexpr in session.config.stash.get(_left_out, {}):
        session.exitstatus = pytest.ExitCode.USAGE_ERROR


def pytest_terminal_summary(terminalreporter, config):
    """The last words before pytest's own closing line."""
    for tier, count in config.stash.get(_left_out, {}).items():
        needs = TIERS[tier][0]
        if config.option.markexpr == tier:
            terminalreporter.write_line(f"ERROR: -m {tier} needs {needs}: none of {count} tests was run", red=True)
        else:
            terminalreporter.write_line(f"NOT RUN: {count} tests marked {tier}; they need {needs}", yellow=True)
