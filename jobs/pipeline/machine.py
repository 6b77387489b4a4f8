"""The state machine of a run: observe a stage, decide, act, again; the same for processes and for Kubernetes Jobs.

It is level-triggered: every decision is made from what is there now (the stage's process or Job, its artifact), never
from what was remembered, so an orchestrator that was killed is replaced by one that goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, Protocol

from pipeline_common.errors import PipelineError
from pipeline_common.logs import get_logger
from pipeline_common.stages import Plan, PlannedStage

EXIT_GATE: Final = 4
# A Job that something else deletes is made again, but not for ever.
MAX_STARTS: Final = 3
LOG_LINES: Final = 50
_log = get_logger(__name__)

_MEANINGS: Final[Mapping[int, str]] = {
    1: "unexpected or transient: run the same command again",
    2: "configuration or usage: change it first",
    3: "an input is missing or damaged: mend it first",
    130: "interrupted: run the same command again",
    137: "killed, out of memory perhaps: run the same command again to resume",
    143: "stopped with its state saved: run the same command again to resume",
}


class Phase(StrEnum):
    """Where a stage's process or Job is."""

    ABSENT = "absent"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STUCK = "stuck"
    """It cannot start, and waiting does not help."""


@dataclass(frozen=True)
class Failure:
    """Why a stage ended without its artifact, as far as it can be known."""

    stage: str
    reason: str
    """In words, for a person."""
    exit_code: int | None = None
    condition: str | None = None
    """The Job's own reason, such as BackoffLimitExceeded."""
    message: str | None = None
    """The container's termination message."""
    job: str | None = None
    pod: str | None = None
    index: int | None = None
    """Which of several machines."""
    attempts: int = 1
    log: tuple[str, ...] = field(default=(), repr=False)
    """The last lines."""


@dataclass(frozen=True)
class Observation:
    """One look at a stage."""

    phase: Phase
    why: str = ""
    """What it waits for, or how it ended."""
    failure: Failure | None = None

    @property
    def waiting(self) -> bool:
        """Whether nothing can be done but wait."""
        return self.phase in {Phase.QUEUED, Phase.RUNNING}


class Action(StrEnum):
    """What to do next for a stage."""

    START = "start"
    WAIT = "wait"
    REUSE = "reuse"
    ACCEPT = "accept"
    FAIL = "fail"


def decide(seen: Observation, *, artifact: bool, force: bool, starts: int = 0) -> Action:
    """The next action for a stage.

    Args:
        seen: its process or Job.
        artifact: whether its finished artifact is in the store.
        force: run it although the artifact is there.
        starts: how often this orchestrator has started it already.
    """
    if seen.waiting:
        return Action.WAIT
    if seen.phase is Phase.SUCCEEDED:
        return Action.ACCEPT if artifact else Action.FAIL
    if seen.phase is Phase.FAILED:
        gated = seen.failure is not None and seen.failure.exit_code == EXIT_GATE
        return Action.ACCEPT if gated and artifact else Action.FAIL
    if seen.phase is Phase.STUCK:
        return Action.FAIL
    if artifact and (starts > 0 or not force):
        return Action.REUSE
    return Action.START if starts < MAX_STARTS else Action.FAIL


def meaning(code: int) -> str:
    """What a stage's exit code asks of a person."""
    return _MEANINGS.get(code, "see its log")


class Runner(Protocol):
    """Where stages run."""

    def start(self, planned: PlannedStage) -> None:
        """Start a stage; one that is there already is adopted."""

    def observe(self, planned: PlannedStage, *, wait: bool) -> Observation:
        """Look at a stage; with `wait`, at latest when something about it has changed or a while has passed."""

    def logs(self, planned: PlannedStage, lines: int) -> tuple[str, ...]:
        """The last lines a stage wrote, as far as they can still be had."""

    def cancel(self, planned: PlannedStage) -> None:
        """End a stage that is queued or running."""


class Results(Protocol):
    """Artifacts and rows of a run."""

    def is_finished(self, planned: PlannedStage) -> bool:
        """Whether the stage's artifact is in the store."""

    def reuse(self, planned: PlannedStage) -> bool:
        """Take a finished artifact into this run; False when there is none that can be used."""

    def explain_missing(self, planned: PlannedStage) -> str:
        """Why a stage that ended well left no artifact of this run's."""

    def record_failure(self, planned: PlannedStage, failure: Failure) -> None:
        """Keep the reason where it outlives the stage."""


def run_stages(plan: Plan, runner: Runner, results: Results, *, force: bool) -> tuple[dict[str, float], Failure | None]:
    """Bring every stage of `plan` to its end, in order; stop at the first that fails.

    Returns:
        The seconds spent on each stage, and the failure that ended the run.
    """
    seconds: dict[str, float] = {}
    for name, planned in plan.stages.items():
        began = time.monotonic()
        failure = _run_stage(planned, runner, results, force=force)
        seconds[name] = time.monotonic() - began
        if failure is not None:
            results.record_failure(planned, failure)
            return seconds, failure
    return seconds, None


def _run_stage(planned: PlannedStage, runner: Runner, results: Results, *, force: bool) -> Failure | None:
    starts = 0
    seen = runner.observe(planned, wait=False)
    while True:
        if seen.phase is Phase.ABSENT:
            # Reusing is also the test whether there is anything to reuse.
            artifact = (starts > 0 or not force) and results.reuse(planned)
        else:
            artifact = not seen.waiting and results.is_finished(planned)
        action = decide(seen, artifact=artifact, force=force, starts=starts)
        _log.debug("%s: %s, artifact %s: %s", planned.stage.name, seen.phase, artifact, action)
        if action in {Action.ACCEPT, Action.REUSE}:
            return None
        if action is Action.FAIL:
            return _end_failed(planned, seen, runner, results)
        if action is Action.START:
            runner.start(planned)
            starts += 1
        seen = runner.observe(planned, wait=True)


def _end_failed(planned: PlannedStage, seen: Observation, runner: Runner, results: Results) -> Failure:
    """The failure with the stage's last lines; a stage that is stuck is ended."""
    failure = seen.failure or _unseen_failure(planned, seen, results)
    failure = replace(failure, log=runner.logs(planned, LOG_LINES))
    if seen.phase is Phase.STUCK:
        try:
            # A Job that cannot start holds its GPU all the same.
            runner.cancel(planned)
        except PipelineError as error:
            failure = replace(failure, reason=f"{failure.reason}. It could not be ended: {error}")
    return failure


def _unseen_failure(planned: PlannedStage, seen: Observation, results: Results) -> Failure:
    name = planned.stage.name
    if seen.phase is Phase.SUCCEEDED:
        return Failure(name, f"ended well, but left no {planned.key}: {results.explain_missing(planned)}")
    return Failure(name, f"was started {MAX_STARTS} times and vanished each time; something deletes it")
