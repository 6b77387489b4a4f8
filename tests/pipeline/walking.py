"""Starting the pipeline as a person does, and finding what it left."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

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


def start(output: Path, profile: str, *overrides: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        pipeline_command(output, profile, *overrides),
        cwd=REPOSITORY,
        env={**clean_environment(), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], output: Path, timeout_s: float = 900) -> Walk:
    stdout, stderr = process.communicate(timeout=timeout_s)
    return Walk(output, process.returncode, stdout, stderr)


def artifact_of(output: Path, run_id: str, stage: str) -> Path:
    record = json.loads((output / "artifacts" / "runs" / run_id / "run.json").read_text())
    return output / "artifacts" / record["stages"][stage]["artifact"]


def run_ids(output: Path) -> dict[str, str]:
    with sqlite3.connect(output / "centralized.db") as database:
        return dict(database.execute("SELECT profile, run_id FROM experiments").fetchall())
