"""What is read off both models from one load each, and the ruler that the base gives; the model files do the work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jobs.evaluate.base_activations import describe_base, find_base, keep_base
from jobs.evaluate.behaviour import KnownWords, known_words
from jobs.evaluate.exchange import Exchange
from jobs.evaluate.merging import (
    describe_openings,
    merge_activations,
    merge_answers,
    merge_log_odds,
    read_openings,
)
from jobs.evaluate.metric.indices import UndefinedScore
from jobs.evaluate.metric.representation import require_finite
from jobs.evaluate.metric.ruler import Ruler, fit_ruler
from jobs.evaluate.openings import OpeningSet
from jobs.evaluate.records import read_prompts
from jobs.evaluate.selection import LabelledPrompt, select_prompts
from jobs.evaluate.sharing import ROLES
from pipeline_common.config import EvaluateConfig
from pipeline_common.context import Context
from pipeline_common.errors import InputError
from pipeline_common.measures import Degradation
from pipeline_common.model_location import ResolvedModels, model_folder

if TYPE_CHECKING:
    from jobs.evaluate.model_generation import Generated
    from jobs.evaluate.model_reading import EncodedPrompts
    from jobs.evaluate.model_share import PairShare
    from pipeline_common.gpu.models import Placement


@dataclass(frozen=True)
class PairReading:
    """What was read off both models, and the prompts it was read on."""

    prompts: Sequence[LabelledPrompt]
    answered: Sequence[int]
    """Places in `prompts` of those that were answered."""
    activations: Mapping[str, NDArray[np.float32]]
    """Of all prompts [N, L + 1, D]."""
    base_source: str
    """Where the base model's come from, in words."""
    ruler: Ruler
    answers: Mapping[str, Sequence[Generated]]
    openings: OpeningSet | str
    log_odds: Mapping[str, NDArray[np.float64]] | None
    words: KnownWords
    degradations: tuple[Degradation, ...] = ()

    @property
    def unsafe(self) -> NDArray[np.bool_]:
        """Labels [N]."""
        return np.asarray([prompt.unsafe for prompt in self.prompts], dtype=np.bool_)

    @property
    def scored_prompts(self) -> list[LabelledPrompt]:
        """Those that geometry and controls are measured on."""
        return [prompt for prompt, scored in zip(self.prompts, self.ruler.scored, strict=True) if scored]

    @cached_property
    def scored_activations(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Base and tuned on these prompts; without a copy where that is all of them."""
        base, tuned = (self.activations[role] for role in ROLES)
        scored = self.ruler.scored
        return (base, tuned) if scored.all() else (base[scored], tuned[scored])

    @property
    def answered_prompts(self) -> list[LabelledPrompt]:
        """Those that both models answered."""
        return [self.prompts[place] for place in self.answered]


def choose_pair_placement(context: Context) -> tuple[Placement, tuple[Degradation, ...]]:
    """Where the pair runs; quantised as the adapter was trained, for it was fitted to that base."""
    from pipeline_common.gpu.models import choose_placement

    placement = choose_placement(context.config.model, context.config.runtime)
    trained = context.input_json("train", "train.json").get("quantization", placement.quantization)
    if trained == placement.quantization:
        return placement, ()
    detail = (
        f"the adapter was trained with quantization {trained}, so base and tuned model are measured with that "
        f"instead of {placement.quantization}"
    )
    return replace(placement, quantization=trained), (context.degrade("quantization as trained", detail),)


def read_pair(
    context: Context,
    models: ResolvedModels,
    placement: Placement,
    selected: Sequence[LabelledPrompt],
    exchange: Exchange,
) -> PairReading:
    """Everything that needs the two models, this process's part and the others'; the memory is free afterwards."""
    from jobs.evaluate.model import free_memory
    from jobs.evaluate.model_answering import find_openings

    config, clock = context.config.evaluate, context.clock
    with clock.phase("load"):
        share = open_share(context, models, placement, selected, exchange)
        prompts = share.prompts
        words = known_words(context, share.pair.tokenizer, embedded=models.base.kind == "embedded")
    with clock.phase("activations"):
        payload = _describe_base(models, placement, prompts, config, share.sweep)
        known = find_base(context, payload)
        if known is not None:
            # What is measured is looked at by who measures it.
            require_finite(known[0], [prompt.prompt_id for prompt in prompts.prompts], "base")
        share.settle(base_is_known=known is not None)
        measured = share.tables
        merge_activations(measured, share.gather_activations(share.activations()), len(prompts.prompts))
        base, source = known or (measured["base"], "measured in this run")
        if known is None:
            keep_base(context, payload, base)
        ruler = _fit_ruler(base, selected, config)
    with clock.phase("answers"):
        answers, beams = merge_answers(exchange.gather("answers", share.answers()))
    with clock.phase("refusal log-odds"):
        found = find_openings(share.pair, prompts, answers, beams)
        openings = read_openings(exchange.settle("openings", lambda: describe_openings(found)))
        log_odds = None
        if isinstance(openings, OpeningSet):
            log_odds = merge_log_odds(exchange.gather("log-odds", share.log_odds(openings)), len(selected))
    del share
    free_memory()
    return PairReading(
        selected,
        prompts.answered,
        {"base": base, "tuned": measured["tuned"]},
        source,
        ruler,
        answers,
        openings,
        log_odds,
        words,
        tuple(exchange.degradations),
    )


def open_share(
    context: Context,
    models: ResolvedModels,
    placement: Placement,
    selected: Sequence[LabelledPrompt],
    exchange: Exchange,
) -> PairShare:
    """Load the pair for this process's part."""
    from jobs.evaluate.model import load_pair
    from jobs.evaluate.model_reading import encode_selected
    from jobs.evaluate.model_share import PairShare

    prompt_format = context.config.prepare.prompt_format
    folder = model_folder(models.base, context.store)
    pair = load_pair(folder, context.input_file("train", "adapter"), placement, prompt_format)
    prompts = encode_selected(pair, selected, prompt_format, context.config.evaluate)
    return PairShare(context, exchange, pair, prompts)


def select(context: Context) -> list[LabelledPrompt]:
    """The prompts that are measured, the same in every process."""
    config = context.config.evaluate
    return select_prompts(
        read_prompts(context.input_file("prepare", "prompts.parquet")),
        config.prompts_per_class,
        config.seed,
        floor=config.min_prompts_per_class,
    )


def _describe_base(
    models: ResolvedModels, placement: Placement, prompts: EncodedPrompts, config: EvaluateConfig, sweep: str
) -> dict[str, Any]:
    return describe_base(
        commit=models.base.commit,
        quantization=placement.quantization,
        compute_dtype=str(placement.compute_dtype).removeprefix("torch."),
        device=placement.device,
        sweep=sweep,
        batch_tokens=config.batch_tokens,
        pooling=config.pooling,
        prompt_ids=[prompt.prompt_id for prompt in prompts.prompts],
        token_ids=prompts.token_ids,
    )


def _fit_ruler(base: NDArray[np.float32], prompts: Sequence[LabelledPrompt], config: EvaluateConfig) -> Ruler:
    """Fit what both models are measured by; before the long generation, since it shows what cannot be scored."""
    try:
        return fit_ruler(
            base,
            np.asarray([prompt.unsafe for prompt in prompts], dtype=np.bool_),
            [prompt.axiom for prompt in prompts],
            [prompt.prompt_id for prompt in prompts],
            mode=config.layers,
            band=config.layer_band,
            components=config.pca_components,
            seed=config.seed,
        )
    except UndefinedScore as undefined:
        raise InputError(
            f"evaluate.layers={config.layers!r} with evaluate.pooling={config.pooling} cannot be scored: "
            f"{undefined.reason}; choose other layers"
        ) from undefined
