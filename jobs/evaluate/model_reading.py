"""Everything that is read off the pair of models, phase by phase: activations, answers, refusal log-odds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from jobs.evaluate.batching import MOST_GENERATED_TOKENS
from jobs.evaluate.metric.representation import require_finite
from jobs.evaluate.model import ROLES, ModelPair, resolve_batch_tokens
from jobs.evaluate.model_flat_sweep import sweep_flat
from jobs.evaluate.model_generation import Generated, beam_openings, generate
from jobs.evaluate.model_openings import refusal_log_odds
from jobs.evaluate.model_sweep import sweep
from jobs.evaluate.openings import OPENING_TOKENS, OpenedAnswer, OpeningSet, build_tree, choose_openings, cut_opening
from jobs.evaluate.refusal import is_refusal
from jobs.evaluate.selection import LabelledPrompt, take_stratified
from pipeline_common.config import EvaluateConfig
from pipeline_common.logs import get_logger
from pipeline_common.prompts import PromptFormat, Turn, encode_prompts

BEAMS: Final = 8
BEAM_PROMPTS: Final = 64
"""Unsafe prompts on which the beginnings of refusals are searched for."""
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


def read_activations(
    pair: ModelPair, prompts: EncodedPrompts, config: EvaluateConfig, role: str, degrade: Degrade
) -> Activations:
    """A role's pooled activations [N, L + 1, D].

    Args:
        pair: both models.
        prompts: what they read.
        config: pooling, batches and the way of reading.
        role: in `ROLES`.
        degrade: told (name, detail) when batches must be smaller than planned.

    Raises:
        InputError: NaN or infinity (which prompt, which layer).
    """
    pooled = {
        "pooling": config.pooling,
        "bos_id": pair.tokenizer.bos_token_id,
        "what": f"activations of the {role} model",
    }
    with pair.playing(role) as model:
        batch_tokens = resolve_batch_tokens(config.batch_tokens, model)
        if chosen_sweep(pair, config) == "flat":
            halved = partial(_tell_halved, degrade, role, batch_tokens)
            found = sweep_flat(model, prompts.token_ids, batch_tokens=batch_tokens, on_halved=halved, **pooled)
        else:
            found = sweep(model, prompts.token_ids, pad_id=pair.pad_id, batch_tokens=batch_tokens, **pooled)
    require_finite(found, [prompt.prompt_id for prompt in prompts.prompts], role)
    return found


def _tell_halved(degrade: Degrade, role: str, planned: int, halved: int) -> None:
    degrade(
        "smaller batches",
        f"activations of the {role} model: batches of {planned} tokens did not fit the GPU's free memory, {halved} "
        "did; "
        f"set evaluate.batch_tokens={halved}",
    )


def chosen_sweep(pair: ModelPair, config: EvaluateConfig) -> str:
    """How activations are read here: "simple" (padded batches) or "flat"."""
    if config.sweep != "auto":
        return config.sweep
    return "flat" if pair.placement.device == "cuda" else "simple"


def read_answers(pair: ModelPair, prompts: EncodedPrompts, config: EvaluateConfig) -> dict[str, list[Generated]]:
    """Model role -> greedy answers to the prompts that are answered."""
    found = {}
    for role in ROLES:
        with pair.playing(role) as model:
            found[role] = generate(
                model,
                pair.tokenizer,
                [prompts.token_ids[place] for place in prompts.answered],
                stop_ids=pair.stop_ids,
                pad_id=pair.pad_id,
                max_new_tokens=config.max_new_tokens,
                batch_tokens=resolve_batch_tokens(config.batch_tokens, model, MOST_GENERATED_TOKENS),
                what=f"answers of the {role} model",
            )
    return found


def find_openings(
    pair: ModelPair, prompts: EncodedPrompts, answers: Mapping[str, Sequence[Generated]], config: EvaluateConfig
) -> OpeningSet | str:
    """How the two models' refusals begin: their greedy answers, and a beam search over some unsafe prompts."""
    unsafe = [prompt for prompt in prompts.prompts if prompt.unsafe]
    searched = {prompt.prompt_id for prompt in take_stratified(unsafe, BEAM_PROMPTS, config.seed)}
    token_ids = [prompts.token_ids[place] for place, one in enumerate(prompts.prompts) if one.prompt_id in searched]
    probable = []
    for role in ROLES:
        with pair.playing(role) as model:
            found = beam_openings(
                model,
                pair.tokenizer,
                token_ids,
                stop_ids=pair.stop_ids,
                pad_id=pair.pad_id,
                tokens=OPENING_TOKENS,
                beams=BEAMS,
                batch_tokens=resolve_batch_tokens(config.batch_tokens, model, MOST_GENERATED_TOKENS),
                what=f"openings of the {role} model",
            )
        probable += [_opening(one) for beams in found for one in beams if is_refusal(one.text)]
    greedy = [
        OpenedAnswer(role, _opening(one), prompts.prompts[place].unsafe, is_refusal(one.text))
        for role, generated in answers.items()
        for place, one in zip(prompts.answered, generated, strict=True)
    ]
    openings = choose_openings(greedy, probable)
    if isinstance(openings, OpeningSet):
        shown = " | ".join(repr(pair.tokenizer.decode(list(opening))) for opening in openings.openings)
        _log.debug("refusal openings: %s; share of refusals they begin: %s", shown, dict(openings.covered))
    return openings


def read_log_odds(
    pair: ModelPair, prompts: EncodedPrompts, openings: OpeningSet, config: EvaluateConfig
) -> dict[str, NDArray[np.float64]]:
    """Model role -> log-odds of a refusal opening [N], nats."""
    tree = build_tree(openings.openings)
    found: dict[str, NDArray[np.float64]] = {}
    for role in ROLES:
        with pair.playing(role) as model:
            found[role] = refusal_log_odds(
                model,
                prompts.token_ids,
                tree,
                pad_id=pair.pad_id,
                batch_tokens=resolve_batch_tokens(config.batch_tokens, model),
                what=f"refusal log-odds of the {role} model",
            )
    return found


def _opening(answer: Generated) -> tuple[int, ...]:
    return cut_opening(answer.token_ids, answer.stop_id)
