"""A local judge in several processes: each loads it and scores its share of the forms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from jobs.evaluate.exchange import Exchange
from jobs.evaluate.judge.scoring import Question
from jobs.evaluate.judge.steps import StepPlan, read_plan
from jobs.evaluate.parts import Part
from pipeline_common.context import Context
from pipeline_common.errors import InputError
from pipeline_common.judge_form import FormStyle
from pipeline_common.model_location import ResolvedModel, ResolvedModels, model_folder

if TYPE_CHECKING:
    from jobs.evaluate.judge.local import LocalJudge


def judge_share(context: Context, models: ResolvedModels, exchange: Exchange) -> None:
    """Follower: load a local judge and score this process's part; nothing where the leader judges alone.

    Raises:
        InputError: the judge does not load.
    """
    if context.config.evaluate.judge.kind != "local":
        return
    asked = [Question(**question) for question in exchange.hear("questions")]

    def hear(_: LocalJudge) -> tuple[StepPlan, int]:
        said = exchange.hear("judge")
        return read_plan(said["steps"]), int(said["batch_tokens"])

    score_share(context, require_judge(context, models), asked, exchange, hear)


def require_judge(context: Context, models: ResolvedModels) -> ResolvedModel:
    """The judge that *environment* resolved.

    Raises:
        InputError: there is none.
    """
    if models.judge is None:
        raise InputError(
            f"environment resolved no judge, but evaluate.judge.kind=local asks for "
            f"{context.config.evaluate.judge.model}; run the environment stage with the same settings"
        )
    return models.judge


def score_share(
    context: Context,
    judge: ResolvedModel,
    asked: Sequence[Question],
    exchange: Exchange,
    agree: Callable[[LocalJudge], tuple[StepPlan, int]],
) -> tuple[StepPlan, Part]:
    """Load the judge and score this process's part.

    Args:
        context: of the stage.
        judge: which model.
        asked: every form, the same in all processes.
        exchange: with the others.
        agree: given the loaded judge, the evaluation steps and the tokens of a batch that all use.

    Returns:
        The steps, and records of (place in `asked`, `DigitScore` as a mapping).
    """
    import torch

    from jobs.evaluate.judge.local import open_judge
    from pipeline_common.gpu.models import Placement, choose_placement

    config = context.config
    placement = choose_placement(config.model, config.runtime)
    embedded = judge.kind == "embedded"
    if embedded:
        placement = Placement(placement.device, torch.float32, "none")
    folder = model_folder(judge, context.store)
    style: FormStyle = "short" if embedded else "full"
    with open_judge(folder, placement, style, config.evaluate.batch_tokens) as opened:
        plan, batch_tokens = agree(opened)

        def score() -> Part:
            scores = opened.score(
                asked,
                plan,
                min_mass=config.evaluate.judge.min_digit_mass,
                batch_tokens=batch_tokens,
                shard=exchange.shard,
            )
            return Part([[place, asdict(one)] for place, one in scores.items()])

        return plan, exchange.contribute("scores", score)
