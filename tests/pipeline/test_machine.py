"""The decision, as a table; and the loop, on runners that act out a script."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from jobs.pipeline.machine import MAX_STARTS, Action, Failure, Observation, Phase, decide, meaning, run_stages
from pipeline_common.config import load_config
from pipeline_common.errors import ConfigError
from pipeline_common.stages import STAGE_NAMES, plan_run

GATED = Failure("analyze", "gated", exit_code=4)
BROKEN = Failure("train", "broken", exit_code=1)


@pytest.mark.parametrize(
    ("phase", "artifact", "force", "starts", "action"),
    [
        (Phase.ABSENT, False, False, 0, Action.START),
        (Phase.ABSENT, True, False, 0, Action.REUSE),
        (Phase.ABSENT, True, True, 0, Action.START),
        # A forced stage that this process started, whose Job was collected after it ended well.
        (Phase.ABSENT, True, True, 1, Action.REUSE),
        (Phase.ABSENT, False, False, MAX_STARTS, Action.FAIL),
        (Phase.SUCCEEDED, True, False, 0, Action.ACCEPT),
        (Phase.SUCCEEDED, True, True, 1, Action.ACCEPT),
        (Phase.SUCCEEDED, False, False, 1, Action.FAIL),
        (Phase.FAILED, False, False, 1, Action.FAIL),
        (Phase.FAILED, True, False, 1, Action.FAIL),
        (Phase.STUCK, False, False, 1, Action.FAIL),
    ],
)
def test_the_decision(phase, artifact, force, starts, action):
    assert decide(Observation(phase, failure=None), artifact=artifact, force=force, starts=starts) is action


def test_what_runs_or_queues_is_waited_for_whatever_else_is_true():
    table = list(itertools.product((Phase.QUEUED, Phase.RUNNING), (False, True), (False, True), range(MAX_STARTS + 1)))
    assert len(table) == 32
    for phase, artifact, force, starts in table:
        assert decide(Observation(phase), artifact=artifact, force=force, starts=starts) is Action.WAIT


def test_a_gated_verdict_is_a_result_and_not_a_failure():
    assert decide(Observation(Phase.FAILED, failure=GATED), artifact=True, force=False) is Action.ACCEPT
    assert decide(Observation(Phase.FAILED, failure=GATED), artifact=False, force=False) is Action.FAIL
    assert decide(Observation(Phase.FAILED, failure=BROKEN), artifact=True, force=False) is Action.FAIL


def test_every_exit_code_of_ours_has_a_meaning():
    assert len({meaning(code) for code in (1, 2, 3, 130, 137, 143)}) == 6
    assert meaning(99) == "see its log"


class Script:
    """A runner and a store in one: each stage goes through the phases written for it."""

    def __init__(self, phases: dict[str, list[Phase]], finished: set[str]) -> None:
        self.phases = {name: list(phases.get(name, [])) for name in STAGE_NAMES}
        self.finished = set(finished)
        self.started: list[str] = []
        self.recorded: list[Failure] = []
        self.cancelled: list[str] = []
        self.may_cancel = True

    def start(self, planned):
        self.started.append(planned.stage.name)

    def observe(self, planned, *, wait):
        del wait
        name = planned.stage.name
        phase = self.phases[name].pop(0) if self.phases[name] else Phase.ABSENT
        if phase is Phase.SUCCEEDED:
            self.finished.add(name)
        return Observation(phase, failure=BROKEN if phase in {Phase.FAILED, Phase.STUCK} else None)

    def logs(self, planned, lines):
        return tuple(f"{planned.stage.name} {number}" for number in range(lines))[-2:]

    def cancel(self, planned):
        if self.may_cancel:
            self.cancelled.append(planned.stage.name)
        else:
            raise ConfigError("not allowed")

    def is_finished(self, planned):
        return planned.stage.name in self.finished

    reuse = is_finished

    def explain_missing(self, planned):
        return f"no {planned.key}"

    def record_failure(self, planned, failure):
        del planned
        self.recorded.append(failure)


def act_out(phases: dict[str, list[Phase]], finished: set[str] = frozenset(), *, force: bool = False):
    script = Script(phases, finished)
    seconds, failure = run_stages(plan_run(load_config("tiny")), script, script, force=force)
    return script, seconds, failure


def test_every_stage_is_started_once_and_waited_for():
    whole = [Phase.ABSENT, Phase.QUEUED, Phase.RUNNING, Phase.RUNNING, Phase.SUCCEEDED]
    script, seconds, failure = act_out(dict.fromkeys(STAGE_NAMES, whole))
    assert failure is None
    assert script.started == list(STAGE_NAMES) == list(seconds)


def test_finished_stages_are_not_started():
    script, _, failure = act_out({"train": [Phase.ABSENT, Phase.SUCCEEDED]}, set(STAGE_NAMES) - {"train"})
    assert failure is None
    assert script.started == ["train"]


def test_what_runs_already_is_adopted():
    others = set(STAGE_NAMES) - {"train"}
    script, _, failure = act_out({"train": [Phase.RUNNING, Phase.SUCCEEDED]}, others)
    assert failure is None
    assert script.started == []


def test_the_first_failure_ends_the_run_and_is_recorded():
    script, seconds, failure = act_out(
        {"train": [Phase.ABSENT, Phase.RUNNING, Phase.FAILED]}, {"environment", "prepare"}
    )
    assert failure == replace(BROKEN, log=("train 48", "train 49"))
    assert script.recorded == [failure]
    assert script.cancelled == []
    assert script.started == ["train"]
    assert list(seconds) == ["environment", "prepare", "train"]


def test_what_is_stuck_is_ended_and_the_reason_told_even_if_it_cannot_be():
    script, _, failure = act_out({"environment": [Phase.ABSENT, Phase.STUCK]})
    assert script.cancelled == ["environment"]
    assert failure.reason == "broken"
    script = Script({"environment": [Phase.STUCK]}, set())
    script.may_cancel = False
    _, failure = run_stages(plan_run(load_config("tiny")), script, script, force=False)
    assert failure.reason == "broken. It could not be ended: not allowed"


def test_a_job_that_vanishes_is_made_again_but_not_for_ever():
    script, _, failure = act_out(
        {"train": [Phase.ABSENT, Phase.RUNNING, Phase.ABSENT, Phase.SUCCEEDED]}, set(STAGE_NAMES) - {"train"}
    )
    assert failure is None
    assert script.started == ["train", "train"]
    script, _, failure = act_out({}, {"environment", "prepare"})
    assert script.started == ["train"] * MAX_STARTS
    assert "vanished" in failure.reason


def test_ending_well_without_the_artifact_is_a_failure():
    class Forgetful(Script):
        def is_finished(self, planned):
            return False

        def reuse(self, planned):
            return False

    script = Forgetful({"environment": [Phase.SUCCEEDED]}, set())
    _, failure = run_stages(plan_run(load_config("tiny")), script, script, force=False)
    assert "left no environment/" in failure.reason
