"""What the pair of models answers, phase by phase: greedy answers, how refusals begin, the log-odds of refusing.

Each phase is a list of batches, the same in every process, and a way to read some of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from jobs.evaluate.batching import token_budget_batches
from jobs.evaluate.model import ModelPair
from jobs.evaluate.model_generation import Generated, beam_openings, generate
from jobs.evaluate.model_openings import refusal_log_odds, rows_at_once
from jobs.evaluate.model_reading import Budgets, EncodedPrompts
from jobs.evaluate.openings import (
    OPENING_TOKENS,
    OpenedAnswer,
    Opening,
    OpeningSet,
    build_tree,
    choose_openings,
    cut_opening,
)
from jobs.evaluate.refusal import is_refusal
from jobs.evaluate.selection import take_stratified
from jobs.evaluate.sharing import ROLES, Batch, Share, list_batches
from pipeline_common.clock import PhaseClock
from pipeline_common.config import EvaluateConfig
from pipeline_common.logs import get_logger

BEAMS: Final = 8
BEAM_PROMPTS: Final = 64
"""Unsafe prompts on which the beginnings of refusals are searched for."""
ANSWER, SEARCH, SCORE = "answers", "openings", "log-odds"
"""Tasks of batches."""
_log = get_logger(__name__)


def answer_batches(prompts: EncodedPrompts, config: EvaluateConfig, budgets: Budgets) -> list[Batch]:
    """Batches of the answered prompts; `rows` are places in `prompts.answered`."""
    lengths = [len(prompts.token_ids[place]) + config.max_new_tokens for place in prompts.answered]
    return list_batches(ANSWER, ROLES, lengths, lambda lengths: token_budget_batches(lengths, budgets.generating))


def read_answers(
    pair: ModelPair,
    prompts: EncodedPrompts,
    config: EvaluateConfig,
    role: str,
    share: Share,
    budgets: Budgets,
    clock: PhaseClock,
) -> list[Generated]:
    """A role's greedy answers to some of the answered prompts."""
    with pair.playing(role) as model:
        return generate(
            model,
            pair.tokenizer,
            [prompts.token_ids[prompts.answered[row]] for row in share.rows],
            stop_ids=pair.stop_ids,
            pad_id=pair.pad_id,
            max_new_tokens=config.max_new_tokens,
            batch_tokens=budgets.generating,
            within=share.sizes,
            recording=partial(clock.phase, "recording a step of decoding", "compile"),
            what=f"answers of the {role} model",
        )


def searched_prompts(prompts: EncodedPrompts, config: EvaluateConfig) -> list[int]:
    """Places of the unsafe prompts on which the beginnings of refusals are searched for."""
    unsafe = [prompt for prompt in prompts.prompts if prompt.unsafe]
    searched = {prompt.prompt_id for prompt in take_stratified(unsafe, BEAM_PROMPTS, config.seed)}
    return [place for place, one in enumerate(prompts.prompts) if one.prompt_id in searched]


def beam_batches(prompts: EncodedPrompts, config: EvaluateConfig, budgets: Budgets) -> list[Batch]:
    """Batches of the beam search; `rows` are places in `searched_prompts`."""
    lengths = [(len(prompts.token_ids[place]) + OPENING_TOKENS) * BEAMS for place in searched_prompts(prompts, config)]
    return list_batches(SEARCH, ROLES, lengths, lambda lengths: token_budget_batches(lengths, budgets.generating))


def read_beams(
    pair: ModelPair, prompts: EncodedPrompts, config: EvaluateConfig, role: str, share: Share, budgets: Budgets
) -> list[list[Opening]]:
    """The beginnings of refusals among a role's most probable ones, for some of the searched prompts."""
    searched = searched_prompts(prompts, config)
    with pair.playing(role) as model:
        found = beam_openings(
            model,
            pair.tokenizer,
            [prompts.token_ids[searched[row]] for row in share.rows],
            stop_ids=pair.stop_ids,
            pad_id=pair.pad_id,
            tokens=OPENING_TOKENS,
            beams=BEAMS,
            batch_tokens=budgets.generating,
            within=share.sizes,
            what=f"openings of the {role} model",
        )
    return [[_opening(one) for one in beams if is_refusal(one.text)] for beams in found]


def find_openings(
    pair: ModelPair,
    prompts: EncodedPrompts,
    answers: Mapping[str, Sequence[Generated]],
    beams: Mapping[str, Sequence[Sequence[Opening]]],
) -> OpeningSet | str:
    """How the two models' refusals begin: their greedy answers, and a beam search over some unsafe prompts."""
    greedy = [
        OpenedAnswer(role, _opening(one), prompts.prompts[place].unsafe, is_refusal(one.text))
        for role, generated in answers.items()
        for place, one in zip(prompts.answered, generated, strict=True)
    ]
    openings = choose_openings(greedy, [one for role in ROLES for found in beams[role] for one in found])
    if isinstance(openings, OpeningSet):
        shown = " | ".join(repr(pair.tokenizer.decode(list(opening))) for opening in openings.openings)
        _log.debug("refusal openings: %s; share of refusals they begin: %s", shown, dict(openings.covered))
    return openings


def odds_batches(pair: ModelPair, prompts: EncodedPrompts, openings: OpeningSet, budgets: Budgets) -> list[Batch]:
    """Batches of all prompts, each with the whole tree of openings behind it."""
    tree = build_tree(openings.openings)
    lengths = [len(ids) + len(tree.tokens) for ids in prompts.token_ids]
    with pair.playing("base") as model:
        most = rows_at_once(model, tree)
    return list_batches(SCORE, ROLES, lengths, lambda lengths: token_budget_batches(lengths, budgets.reading, most))


def read_log_odds(
    pair: ModelPair, prompts: EncodedPrompts, openings: OpeningSet, role: str, share: Share, budgets: Budgets
) -> NDArray[np.float64]:
    """A role's log-odds of a refusal opening after some prompts [len(share.rows)], nats."""
    with pair.playing(role) as model:
        return refusal_log_odds(
            model,
            [prompts.token_ids[row] for row in share.rows],
            build_tree(openings.openings),
            pad_id=pair.pad_id,
            batch_tokens=budgets.reading,
            within=share.sizes,
            what=f"refusal log-odds of the {role} model",
        )


def _opening(answer: Generated) -> Opening:
    return cut_opening(answer.token_ids, answer.stop_id)
