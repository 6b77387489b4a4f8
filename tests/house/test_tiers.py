"""A tier that cannot run here says so, and asking for it by name is an error, never a green nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from pipeline_common.stages import REPOSITORY

# Nothing that others brought along: it takes longer to import than the probe to run.
_BARE = [word for name in ("cacheprovider", "hypothesispytest", "anyio") for word in ("-p", f"no:{name}")]
PROBE = """
import pytest

@pytest.mark.{tier}
def test_probe():
    assert False, "ran"

def test_other():
    pass
"""


@pytest.fixture
def run_probe(tmp_path):
    """Run two tests, one of the tier and one of none, under the project's own hooks, on a machine without either."""
    (tmp_path / "tests").mkdir()
    for name in ("tests/tiers.py", "tests/workers.py", "pyproject.toml"):
        (tmp_path / name).write_text((REPOSITORY / name).read_text())
    (plugins,) = re.findall(r"^pytest_plugins = .+\n", (REPOSITORY / "tests/conftest.py").read_text(), re.MULTILINE)
    (tmp_path / "tests" / "conftest.py").write_text(plugins)
    outside = {name: value for name, value in os.environ.items() if name not in {"KUBECONFIG", "PATH"}}

    def run(tier, *options):
        (tmp_path / "tests" / "test_probe.py").write_text(PROBE.format(tier=tier))
        command = [sys.executable, "-m", "pytest", "-q", *_BARE, *options]
        return subprocess.run(command, cwd=tmp_path, env=outside, capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize("workers", [[], ["-n", "auto"]], ids=["in one process", "on every core"])
@pytest.mark.parametrize("tier", ["gpu", "cluster"])
def test_a_tier_that_cannot_run_is_named(run_probe, tier, workers):
    done = run_probe(tier, *workers)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(f"NOT RUN: 1 tests marked {tier}; they need ") == 1, done.stdout + done.stderr
    # The controller of several workers does not hear what they deselected: hence the sentence.
    assert ("1 passed" if workers else "1 passed, 1 deselected") in done.stdout.splitlines()[-1]
    asked = run_probe(tier, "-m", tier, *workers)
    assert asked.returncode == pytest.ExitCode.USAGE_ERROR
    assert "none of 1 tests was run" in asked.stdout
