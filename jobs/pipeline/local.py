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

from jobs.pipeline.machine import Failure, Observation, Phase, meaning, run_stages
from jobs.pipeline.results import StoredResults
from jobs.pipeline.summary import print_summary
from pipeline_common.config import Config
from pipeline_common.errors import ConfigError
from pipeline_common.execution import finish_run
from pipeline_common.explaining import why_not_cached
from pipeline_common.logs import get_logger
from pipeline_common.members import INDEX_VARIABLE, LEADER_VARIABLE
from pipeline_common.provenance import REPOSITORY
from pipeline_common.stages import Plan, PlannedStage
from pipeline_common.workplace import Workplace

_log = get_logger(__name__)


def refuse_several_machines(config: Config) -> None:
    """This machine is one.

    Raises:
        ConfigError: `runtime.nodes` asks for more.
    """
    nodes = config.runtime.nodes
    if nodes > 1:
        raise ConfigError(
            f"runtime.nodes={nodes}: a local run has this machine only. Several GPUs of it are runtime.gpus; several "
            "machines are a cluster's (make pipeline, docs/cluster.md), or each stage started by hand on every one of "
            f"them ({INDEX_VARIABLE} and {LEADER_VARIABLE} say which is which)"
        )


def run_locally(place: Workplace, plan: Plan, command: Sequence[str], *, force: bool) -> int:
    """Run every stage that is not finished; stop at the first that fails, with its exit code.

    Args:
        place: the stores.
        plan: what to run.
        command: the stages' command line: configuration, overrides, run id.
        force: run finished stages too.
    """
    began = time.monotonic()
    _log.info("run %s, five stages into %s", plan.run_id, place.output)
    runner = LocalRunner([*command, *(["--force"] if force else [])])
    seconds, failure = run_stages(plan, runner, StoredResults(place, plan), force=force)
    if failure is not None:
        _log.error("%s %s; later stages were not started", failure.stage, failure.reason)
        return failure.exit_code or 1
    finish_run(place)
    return print_summary(place, plan, seconds, time.monotonic() - began)


def explain_plan(place: Workplace, plan: Plan) -> None:
    """Say of every stage whether it is cached, or which field keeps it from being so."""
    for name, planned in plan.stages.items():
        manifest = place.store.read_manifest(planned.key)
        reason = why_not_cached(place.store, planned) if manifest is None else f"cached as {planned.key}"
        sys.stdout.write(f"{name}: {reason}\n")


class LocalRunner:
    """Each stage in a process of its own."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._arguments = list(arguments)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, planned: PlannedStage) -> None:
        """See `Runner.start`."""
        name = planned.stage.name
        self._processes[name] = subprocess.Popen(
            [sys.executable, "-m", f"jobs.{name}", *self._arguments], cwd=Path.cwd(), env=_environment()
        )

    def observe(self, planned: PlannedStage, *, wait: bool) -> Observation:
        """See `Runner.observe`."""
        name = planned.stage.name
        process = self._processes.get(name)
        if process is None:
            return Observation(Phase.ABSENT)
        status = _wait(process) if wait else process.poll()
        if status is None:
            return Observation(Phase.RUNNING)
        if status == 0:
            return Observation(Phase.SUCCEEDED)
        code = 128 - status if status < 0 else status
        failure = Failure(name, f"ended with exit code {code} ({meaning(code)})", exit_code=code)
        return Observation(Phase.FAILED, failure.reason, failure)

    def logs(self, planned: PlannedStage, lines: int) -> tuple[str, ...]:
        """See `Runner.logs`: a stage's lines go straight to the terminal."""
        del planned, lines
        return ()

    def cancel(self, planned: PlannedStage) -> None:
        """See `Runner.cancel`."""
        process = self._processes.get(planned.stage.name)
        if process is not None and process.poll() is None:
            process.terminate()
            process.wait()


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Wait for a stage; SIGTERM is passed on, and its exit code is ours."""
    previous = signal.getsignal(signal.SIGTERM)

    def forward(number: int, _frame: FrameType | None) -> None:
        process.send_signal(number)

    signal.signal(signal.SIGTERM, forward)
    try:
        return process.wait()
    except KeyboardInterrupt:
        # The terminal has sent it to the stage as well: let it end first.
        process.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)


def _environment() -> dict[str, str]:
    # The stages are modules of this checkout, wherever the command was typed.
    path = os.pathsep.join(entry for entry in (str(REPOSITORY), os.environ.get("PYTHONPATH", "")) if entry)
    return {**os.environ, "PYTHONPATH": path}
