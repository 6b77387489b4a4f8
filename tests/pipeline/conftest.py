"""The walks: whole runs of the pipeline as a person starts them, each made once for all tests of this folder."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline_common.stages import REPOSITORY


@dataclass(frozen=True)
class Walk:
    """One finished command."""

    output: Path
    code: int
    stdout: str
    stderr: str

    def artifact(self, stage: str) -> Path:
        return (self.output / "latest" / stage).resolve()


def pipeline_command(output: Path, profile: str, *overrides: str) -> list[str]:
    return [sys.executable, "-m", "jobs.pipeline", "--config", profile, f"runtime.output_dir={output}", *overrides]


def clean_environment() -> dict[str, str]:
    return {
        name: value for name, value in os.environ.items() if name not in {"ARTIFACTS_URI", "DATABASE_URL", "RUN_ID"}
    }


def start(output: Path, profile: str, *overrides: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        pipeline_command(output, profile, *overrides),
        cwd=REPOSITORY,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], output: Path, timeout_s: float = 900) -> Walk:
    stdout, stderr = process.communicate(timeout=timeout_s)
    return Walk(output, process.returncode, stdout, stderr)


@dataclass(frozen=True)
class Walks:
    tiny: Walk
    again_from_scratch: Walk
    harmful: Walk


@pytest.fixture(scope="session")
def walks(tmp_path_factory) -> Walks:
    """`tiny` twice from nothing, side by side on two cores; then `tiny-harmful` into the first one's output."""
    first, second = tmp_path_factory.mktemp("first") / "output", tmp_path_factory.mktemp("second") / "output"
    running = [(start(output, "tiny"), output) for output in (first, second)]
    tiny, again = [finish(process, output) for process, output in running]
    assert tiny.code == 0, tiny.stderr
    assert again.code == 0, again.stderr
    harmful = finish(start(first, "tiny-harmful"), first)
    assert harmful.code == 0, harmful.stderr
    return Walks(tiny, again, harmful)
