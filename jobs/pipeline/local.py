"""The stages as processes of this machine, one after the other, so that GPU memory is free between them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final

from jobs.pipeline.summary import print_summary
from pipeline_common.execution import find_finished, finish_run, reuse
from pipeline_common.explaining import why_not_cached
from pipeline_common.logs import get_logger
from pipeline_common.provenance import REPOSITORY
from pipeline_common.recording import prepare_database
from pipeline_common.stages import Plan, PlannedStage
from pipeline_common.workplace import Workplace

EXIT_GATE: Final = 4
_log = get_logger(__name__)


def run_locally(place: Workplace, plan: Plan, command: Sequence[str], *, force: bool) -> int:
    """Run every stage that is not finished; stop at the first that fails, with its exit code.

    Args:
        place: the stores.
        plan: what to run.
        command: the stages' command line: configuration, overrides, run id.
        force: run finished stages too.
    """
    began = time.monotonic()
    seconds: dict[str, float] = {}
    code = 0
    _log.info("run %s, five stages into %s", plan.run_id, place.output)
    for name, planned in plan.stages.items():
        started = time.monotonic()
        if not force and _reuse_finished(place, plan, planned):
            seconds[name] = time.monotonic() - started
            continue
        code = _run_stage_process(name, [*command, *(["--force"] if force else [])])
        seconds[name] = time.monotonic() - started
        if code not in {0, EXIT_GATE}:
            _log.error("%s ended with exit code %d; later stages were not started (%s)", name, code, _meaning(code))
            return code
    finish_run(place)
    return max(code, print_summary(place, plan, seconds, time.monotonic() - began))


def explain_plan(place: Workplace, plan: Plan) -> None:
    """Say of every stage whether it is cached, or which field keeps it from being so."""
    for name, planned in plan.stages.items():
        manifest = place.store.read_manifest(planned.key)
        reason = why_not_cached(place.store, planned) if manifest is None else f"cached as {planned.key}"
        sys.stdout.write(f"{name}: {reason}\n")


def _reuse_finished(place: Workplace, plan: Plan, planned: PlannedStage) -> bool:
    manifest = find_finished(place, planned)
    if manifest is None:
        return False
    prepare_database(place, plan, planned)
    reuse(place, plan, planned, manifest)
    return True


def _run_stage_process(name: str, arguments: Sequence[str]) -> int:
    """Run one stage in a process of its own and wait; SIGTERM is passed on, and its exit code is ours."""
    process = subprocess.Popen([sys.executable, "-m", f"jobs.{name}", *arguments], cwd=Path.cwd(), env=_environment())
    previous = signal.getsignal(signal.SIGTERM)

    def forward(number: int, _frame: FrameType | None) -> None:
        process.send_signal(number)

    signal.signal(signal.SIGTERM, forward)
    try:
        code = process.wait()
    except KeyboardInterrupt:
        # The terminal has sent it to the stage as well: let it end first.
        process.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)
    return 128 - code if code < 0 else code


def _environment() -> dict[str, str]:
    # The stages are modules of this checkout, wherever the command was typed.
    path = os.pathsep.join(entry for entry in (str(REPOSITORY), os.environ.get("PYTHONPATH", "")) if entry)
    return {**os.environ, "PYTHONPATH": path}


def _meaning(code: int) -> str:
    meanings = {
        1: "unexpected or transient: run the same command again",
        2: "configuration or usage: change it first",
        3: "an input is missing or damaged: mend it first",
        130: "interrupted: run the same command again",
        137: "killed, out of memory perhaps: run the same command again to resume",
        143: "stopped with its state saved: run the same command again to resume",
    }
    return meanings.get(code, "see its log")
