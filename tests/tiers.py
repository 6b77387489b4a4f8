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
    """Leave out what this machine cannot run; whoever asked for it by name gets an error in place of nothing."""
    left_out: dict[str, int] = {}
    for tier, (needs, is_there) in TIERS.items():
        without = [item for item in items if item.get_closest_marker(tier)]
        if not without or is_there():
            continue
        if config.option.markexpr == tier:
            raise pytest.UsageError(f"-m {tier} needs {needs}: none of {len(without)} tests was run")
        left_out[tier] = len(without)
        config.hook.pytest_deselected(items=without)
        items[:] = [item for item in items if item not in without]
    config.stash[_left_out] = left_out


def pytest_terminal_summary(terminalreporter, config):
    """The last words before pytest's own closing line."""
    for tier, count in config.stash.get(_left_out, {}).items():
        terminalreporter.write_line(f"NOT RUN: {count} tests marked {tier}; they need {TIERS[tier][0]}", yellow=True)
