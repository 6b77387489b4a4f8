"""`runtime.nodes` above 1 where there is one machine: refused before anything is done, and told where it works."""

from __future__ import annotations

import subprocess
import sys

from pipeline_common.stages import REPOSITORY
from tests.pipeline.walking import clean_environment


def call(output, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jobs.pipeline", "--config", "tiny", f"runtime.output_dir={output}", *more],
        cwd=REPOSITORY,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_local_run_on_several_machines_is_refused(tmp_path):
    done = call(tmp_path / "out", "runtime.nodes=2")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "runtime.nodes=2: a local run has this machine only" in line
    for remedy in ("runtime.gpus", "make pipeline", "JOB_COMPLETION_INDEX", "LEADER_ADDRESS"):
        assert remedy in line
    assert not (tmp_path / "out").exists()


def test_looking_at_it_is_not(tmp_path):
    for option in ("--dry-run", "--explain"):
        done = call(tmp_path / "out", "runtime.nodes=2", option)
        assert done.returncode == 0, done.stderr
