"""Runs of the stage: started as its command is, disturbed, and read afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobs.train.checkpoints import MARKER
from pipeline_common.database import read_rows
from pipeline_common.stages import REPOSITORY
from tests.train.conftest import Finished, Prepared

DEADLINE_S = 240.0


def start(prepared: Prepared, *, stub: Path | None = None) -> subprocess.Popen[str]:
    paths = [str(path) for path in (stub, REPOSITORY, os.environ.get("PYTHONPATH")) if path]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "jobs.train", "--config", "tiny", *prepared.overrides]
    return subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def signal_after(process: subprocess.Popen[str], path: Path, number: signal.Signals) -> str:
    """Send a signal as soon as `path` exists; the process's stderr."""
    until = time.monotonic() + DEADLINE_S
    while not path.exists():
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            pytest.fail(f"{path.name} never appeared: {process.communicate()[1]}")
        time.sleep(0.002)
    process.send_signal(number)
    return process.communicate(timeout=DEADLINE_S)[1]


def disturb(prepared: Prepared, step: int, number: signal.Signals, *, follower: bool) -> tuple[int, str]:
    """Start the stage and send a signal to it or its follower after a step; its exit code and what it said."""
    process = start(prepared)
    marker = prepared.checkpoints / f"checkpoint-{step}" / MARKER
    until = time.monotonic() + DEADLINE_S
    while not marker.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.002)
    children = psutil.Process(process.pid).children()
    assert len(children) == 1
    if follower:
        children[0].send_signal(number)
        message = process.communicate(timeout=DEADLINE_S)[1]
    else:
        message = signal_after(process, marker, number)
    gone, alive = psutil.wait_procs(children, timeout=DEADLINE_S)
    assert (len(gone), alive) == (1, [])
    assert process.returncode is not None
    return process.returncode, message


def facts_of(run: Finished) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((run.folder / "train.json").read_text())
    return facts


def comparable_rows(run: Finished) -> list[dict[str, Any]]:
    """Rows less the speed, which no two runs share."""
    rows = list(read_rows(run.folder / "training_metrics.jsonl"))
    return [{name: value for name, value in row.items() if name != "tokens_per_second"} for row in rows]


def losses(run: Finished) -> dict[tuple[str, int], float]:
    return {(row["split"], row["step"]): row["loss"] for row in comparable_rows(run)}
