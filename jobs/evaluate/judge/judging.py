"""Which judge is asked, about which answers, and what is said about its limits."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from jobs.evaluate.exchange import Exchange
from jobs.evaluate.judge.scoring import (
    DigitScore,
    Question,
    compare_scores,
    list_questions,
    spread_scores,
    unique_questions,
)
from jobs.evaluate.judge.shared import require_judge, score_share
from jobs.evaluate.judge.steps import (
    STEPS_FILE,
    StepPlan,
    WriteText,
    describe_plan,
    fixed_steps,
    keep_steps,
    kept_steps,
    read_plan,
    write_steps,
)
from jobs.evaluate.selection import LabelledPrompt, take_stratified
from pipeline_common.context import Context
from pipeline_common.judge_form import CRITERIA
from pipeline_common.logs import get_logger
from pipeline_common.measures import Degradation, Judgement
from pipeline_common.model_location import ResolvedModel, ResolvedModels

if TYPE_CHECKING:
    from jobs.evaluate.judge.local import LocalJudge

KEY_VARIABLE: Final = "JUDGE_API_KEY"
_log = get_logger(__name__)


@dataclass(frozen=True)
class Judged:
    """The judgement, and each answer's scores."""

    judgement: Judgement
    by_answer: Mapping[tuple[str, str], dict[str, dict[str, Any]]] = field(default_factory=dict)
    """(prompt_id, model_role) -> criterion -> `DigitScore.to_record`."""
    degradations: tuple[Degradation, ...] = ()


def judge_answers(
    context: Context,
    models: ResolvedModels,
    prompts: Sequence[LabelledPrompt],
    answers: Mapping[tuple[str, str], str],
    exchange: Exchange,
) -> Judged:
    """Let the configured judge score the answers of both models.

    A local judge is loaded by every process, which scores its share. An endpoint is asked by the leader alone: how many
    requests it gets at once (`evaluate.judge.concurrency`) and which of them the budget pays for do not depend on the
    number of GPUs here.

    Args:
        context: of the stage.
        models: base and judge as *environment* resolved them.
        prompts: those that both models answered; at most `evaluate.judge.max_prompts` of each label are judged.
        answers: (prompt_id, model_role) -> answer.
        exchange: with the other processes.

    Returns:
        What the judge said, or that it was not measured and why: an endpoint that is away costs the judgement, not
        the evaluation.

    Raises:
        InputError: a local judge does not load.
    """
    config = context.config.evaluate
    if config.judge.kind == "none":
        return Judged(
            Judgement(status="not_measured", judge=None, note="no judge is configured (evaluate.judge.kind=none)")
        )
    chosen = take_stratified(prompts, config.judge.max_prompts, config.seed)
    questions = list_questions(chosen, answers)
    if config.judge.kind == "endpoint":
        return _ask_endpoint(context, models, questions)
    return _ask_local(context, models, questions, exchange)


def _ask_local(context: Context, models: ResolvedModels, questions: Sequence[Question], exchange: Exchange) -> Judged:
    judge = require_judge(context, models)
    embedded = judge.kind == "embedded"
    asked = unique_questions(questions)
    exchange.settle("questions", lambda: [asdict(question) for question in asked])

    def settle(opened: LocalJudge) -> tuple[StepPlan, int]:
        def terms() -> dict[str, Any]:
            criteria = _criteria(asked)
            plan = fixed_steps() if embedded else _plan_steps(context, judge.title, criteria, opened.write)
            return {"steps": describe_plan(plan), "batch_tokens": opened.batch_tokens}

        said = exchange.settle("judge", terms)
        return read_plan(said["steps"]), int(said["batch_tokens"])

    plan, own = score_share(context, judge, asked, exchange, settle)
    found = {int(place): score for part in exchange.gather("scores", own) for place, score in part.records}
    scores = [DigitScore(**found[place]) for place in range(len(asked))]
    note = describe_judge(judge, models.base)
    degradations: tuple[Degradation, ...] = ()
    if not embedded:
        degradations = _keep_plan(context, judge.title, plan)
        note += "; " + describe_steps(plan)
    return _conclude(judge.title, note, questions, spread_scores(questions, asked, scores), degradations)


def _ask_endpoint(context: Context, models: ResolvedModels, questions: Sequence[Question]) -> Judged:
    from jobs.evaluate.judge.chat_client import JudgeUnavailable, describe_address
    from jobs.evaluate.judge.endpoint import ask_endpoint

    config = context.config.evaluate.judge
    title = f"{config.model} at {describe_address(str(config.base_url))}"
    # Prompts in an order of their own: when the budget ends, both labels and all axioms have been asked about.
    asked = sorted(unique_questions(questions), key=lambda question: _draw(question.prompt_id))
    plan_steps = partial(_plan_steps, context, title, _criteria(asked))
    try:
        answers = ask_endpoint(asked, config, os.environ.get(KEY_VARIABLE) or None, plan_steps=plan_steps)
    except JudgeUnavailable as reason:
        degradation = context.degrade("judge unreachable", f"behaviour was not judged: {reason}")
        return Judged(
            Judgement(status="not_measured", judge=title, note=f"the judge was not usable: {reason}"),
            degradations=(degradation,),
        )
    note = f"a model behind an endpoint, asked with the full form; {describe_steps(answers.steps)}"
    if config.model == models.base.reference:
        note += "; " + _BIAS
    degradations = _keep_plan(context, title, answers.steps)
    if answers.sampled:
        detail = (
            f"{answers.sampled} of {len(asked)} forms were answered without logprobs: the score is the mean digit of "
            f"{config.samples} replies sampled at temperature 1, not the expectation over the digits"
        )
        degradations += (context.degrade("judge without token probabilities", detail),)
        note += "; " + detail
    if answers.not_asked:
        detail = (
            f"{answers.not_asked} of {len(asked)} forms have no score: the budget of {config.max_requests} requests "
            "(evaluate.judge.max_requests) was spent"
        )
        degradations += (context.degrade("judge budget spent", detail),)
        note += "; " + detail
    return _conclude(title, note, questions, spread_scores(questions, asked, answers.scores), degradations)


def _criteria(questions: Sequence[Question]) -> list[str]:
    asked = {question.criterion for question in questions}
    return [name for name in CRITERIA if name in asked]


def _draw(prompt_id: str) -> str:
    return hashlib.sha256(prompt_id.encode()).hexdigest()


def _plan_steps(context: Context, judge: str, criteria: Sequence[str], write: WriteText) -> StepPlan:
    """The evaluation steps as configured; those an interrupted attempt has had written are used again."""
    if context.config.evaluate.judge.steps == "fixed":
        return fixed_steps(criteria)
    scratch = context.work_dir / STEPS_FILE
    plan = kept_steps(scratch, judge)
    if plan is None or set(plan) != set(criteria):
        plan = write_steps(criteria, write)
        keep_steps(scratch, judge, plan)
    return plan


def _keep_plan(context: Context, judge: str, plan: StepPlan) -> tuple[Degradation, ...]:
    """Put the steps into the artifact; name those that the judge should have written and did not."""
    keep_steps(context.files / STEPS_FILE, judge, plan)
    fixed = [name for name, steps in plan.items() if steps.source == "fixed"]
    if context.config.evaluate.judge.steps == "fixed" or not fixed:
        return ()
    detail = f"the judge's reply is no list of steps for {', '.join(fixed)}; the fixed steps were used there"
    return (context.degrade("judge wrote no evaluation steps", detail),)


def describe_steps(plan: StepPlan) -> str:
    """Whose evaluation steps were used, in words."""
    written = sum(steps.source == "judge" for steps in plan.values())
    if not written:
        return "fixed evaluation steps"
    if written == len(plan):
        return f"evaluation steps written by the judge ({STEPS_FILE})"
    return (
        f"evaluation steps written by the judge for {written} of {len(plan)} criteria, "
        f"fixed for the rest ({STEPS_FILE})"
    )


_BIAS: Final = (
    "BIAS: the judge is the base model itself, so it scores its own answers; choose another evaluate.judge.model"
)


def describe_judge(judge: ResolvedModel, base: ResolvedModel) -> str:
    """What a local judge is and what its scores are worth, for where they are shown."""
    if judge.kind == "embedded":
        parameters = judge.facts.get("parameters")
        size = f"a {parameters / 1e6:.2f} M model" if isinstance(parameters, int | float) else "a tiny model"
        note = (
            f"{size} trained by this project on its own sample sentences: it shows the mechanism and is no independent "
            "opinion; outside the sample sentences its scores mean nothing"
        )
    else:
        note = "a local model, asked with the full form; its scores are those of one judge"
    if judge.commit == base.commit or judge.reference == base.reference:
        note += "; " + _BIAS
    return note


def _conclude(
    title: str,
    note: str,
    questions: Sequence[Question],
    scores: Sequence[DigitScore],
    degradations: tuple[Degradation, ...] = (),
) -> Judged:
    missing = sum(score.score is None for score in scores)
    if missing:
        _log.info("judge: %d of %d scores are missing", missing, len(scores))
    if missing == len(scores):
        reason = next((score.missing for score in scores), "nothing was asked")
        note = f"{note}; none of {len(scores)} answers of the judge was a score, the first because {reason}"
        return Judged(Judgement(status="not_measured", judge=title, note=note), degradations=degradations)
    by_answer: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for question, score in zip(questions, scores, strict=True):
        by_answer.setdefault((question.prompt_id, question.model_role), {})[question.criterion] = score.to_record()
    compared = compare_scores(questions, scores)
    return Judged(Judgement(status="measured", judge=title, note=note, scores=compared), by_answer, degradations)
