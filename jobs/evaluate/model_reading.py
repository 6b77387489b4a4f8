"""Everything that is read off the pair of models, phase by phase: activations, answers, refusal log-odds.

Each phase is a list of batches, the same in every process, and a way to read some of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from jobs.evaluate.batching import MOST_GENERATED_TOKENS, flat_batches, token_budget_batches
from jobs.evaluate.model import ModelPair, resolve_batch_tokens
from jobs.evaluate.model_copies import HostCopies
from jobs.evaluate.model_flat_sweep import sweep_flat
from jobs.evaluate.model_fused import liger_kernels
from jobs.evaluate.model_generation import Generated, beam_openings, generate
from jobs.evaluate.model_openings import refusal_log_odds, rows_at_once
from jobs.evaluate.model_sweep import Rows, states_of, sweep
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
from jobs.evaluate.selection import LabelledPrompt, take_stratified
from jobs.evaluate.sharing import ROLES, Batch, Share, list_batches
from pipeline_common.clock import PhaseClock
from pipeline_common.config import EvaluateConfig
from pipeline_common.gpu.attention import kernel_failure
from pipeline_common.gpu.models import Placement
from pipeline_common.logs import get_logger
from pipeline_common.prompts import PromptFormat, Turn, encode_prompts

BEAMS: Final = 8
BEAM_PROMPTS: Final = 64
"""Unsafe prompts on which the beginnings of refusals are searched for."""
READ, ANSWER, SEARCH, SCORE = "activations", "answers", "openings", "log-odds"
"""Tasks of batches."""
_log = get_logger(__name__)

Activations = NDArray[np.float32]
Degrade = Callable[[str, str], object]


@dataclass(frozen=True)
class EncodedPrompts:
    """The selected prompts and their tokens, in one order everywhere."""

    prompts: Sequence[LabelledPrompt]
    token_ids: Sequence[Sequence[int]]
    answered: Sequence[int]
    """Places of those that are answered."""


def encode_selected(
    pair: ModelPair, selected: Sequence[LabelledPrompt], prompt_format: PromptFormat, config: EvaluateConfig
) -> EncodedPrompts:
    """Encode the selected prompts and say which of them are answered."""
    token_ids = encode_prompts(pair.tokenizer, [[Turn("user", prompt.text)] for prompt in selected], prompt_format)
    subset = {prompt.prompt_id for prompt in take_stratified(selected, config.responses_per_class, config.seed)}
    answered = [place for place, prompt in enumerate(selected) if prompt.prompt_id in subset]
    return EncodedPrompts(selected, token_ids, answered)


@dataclass(frozen=True)
class Budgets:
    """Most tokens of a batch."""

    reading: int
    generating: int

    def within(self, other: Budgets) -> Budgets:
        """The smaller of each."""
        return Budgets(min(self.reading, other.reading), min(self.generating, other.generating))


def measure_budgets(pair: ModelPair, config: EvaluateConfig) -> Budgets:
    """As configured, or what this process's memory allows."""
    with pair.playing("base") as model:
        return Budgets(
            resolve_batch_tokens(config.batch_tokens, model),
            resolve_batch_tokens(config.batch_tokens, model, MOST_GENERATED_TOKENS),
        )


def chosen_sweep(pair: ModelPair, config: EvaluateConfig) -> str:
    """How activations are read here: "simple" (padded batches) or "flat"."""
    if config.sweep != "auto":
        return config.sweep
    return "flat" if pair.placement.device == "cuda" else "simple"


def activation_batches(prompts: EncodedPrompts, sweep: str, roles: Sequence[str], budgets: Budgets) -> list[Batch]:
    """Batches of all prompts."""
    group = flat_batches if sweep == "flat" else token_budget_batches
    lengths = [len(ids) for ids in prompts.token_ids]
    return list_batches(READ, roles, lengths, lambda lengths: group(lengths, budgets.reading))


def activation_shape(pair: ModelPair, prompts: EncodedPrompts) -> tuple[int, int, int]:
    """[N, L + 1, D] of all prompts."""
    with pair.playing("base") as model:
        return (len(prompts.prompts), *states_of(model))


def read_activations(
    pair: ModelPair,
    prompts: EncodedPrompts,
    config: EvaluateConfig,
    role: str,
    share: Share,
    budgets: Budgets,
    degrade: Degrade,
    *,
    table: Activations | None = None,
    copies: HostCopies | None = None,
) -> Activations:
    """A role's pooled activations of some prompts.

    Args:
        pair: both models.
        prompts: what they read.
        config: pooling and the way of reading.
        role: in `ROLES`.
        share: which prompts.
        budgets: of this process.
        degrade: told (name, detail) when batches must be smaller than planned, or a kernel is missing.
        table: [N, L + 1, D] of all prompts, to write into.
        copies: who stores what the flat sweep reads; None = all is stored before this returns.

    Returns:
        The table, or [len(share.rows), L + 1, D] where there is none.

    Raises:
        InputError: NaN or infinity (which prompt, which layer), here or once `copies` has finished.
    """
    flat = chosen_sweep(pair, config) == "flat"
    if flat:
        tell_missing_kernels(pair.placement, degrade)
    token_ids = [prompts.token_ids[row] for row in share.rows]
    ids = [prompt.prompt_id for prompt in prompts.prompts]
    if table is None:
        shape = (len(share.rows), *activation_shape(pair, prompts)[1:])
        ids = [ids[row] for row in share.rows]
        into = Rows(np.empty(shape, dtype=np.float32), range(len(share.rows)), role, ids)
    else:
        into = Rows(table, share.rows, role, ids)
    pooled = {
        "pooling": config.pooling,
        "bos_id": pair.tokenizer.bos_token_id,
        "batch_tokens": budgets.reading,
        "within": share.sizes,
        "into": into,
        "what": f"activations of the {role} model",
    }
    with pair.playing(role) as model:
        if flat:
            halved = partial(_tell_halved, degrade, role, budgets.reading)
            return sweep_flat(model, token_ids, on_halved=halved, copies=copies, **pooled)
        return sweep(model, token_ids, pad_id=pair.pad_id, **pooled)


def tell_missing_kernels(placement: Placement, degrade: Degrade) -> None:
    """Name the fast parts of the flat sweep that a GPU's machine lacks; on the CPU there are none."""
    if placement.device != "cuda":
        return
    if (failure := kernel_failure()) is not None:
        degrade("no varlen attention", f"{failure}; activations: attention is computed row by row, which is slower")
    if liger_kernels() is None:
        degrade("no Liger kernels", "activations: liger-kernel is not installed; torch's own operations are slower")


def _tell_halved(degrade: Degrade, role: str, planned: int, halved: int) -> None:
    degrade(
        "smaller batches",
        f"activations of the {role} model: batches of up to {planned} tokens did not fit the GPU's free memory, "
        f"{halved} did; set evaluate.batch_tokens={halved}",
    )


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
