"""What is read off both models from one load, and the ruler that the base gives; the model files do the work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from jobs.evaluate.base_activations import describe_base, find_base, keep_base
from jobs.evaluate.behaviour import KnownWords, known_words
from jobs.evaluate.metric.indices import UndefinedScore
from jobs.evaluate.metric.ruler import Ruler, fit_ruler
from jobs.evaluate.openings import OpeningSet
from jobs.evaluate.selection import LabelledPrompt
from pipeline_common.clock import PhaseClock
from pipeline_common.config import EvaluateConfig
from pipeline_common.context import Context
from pipeline_common.errors import InputError
from pipeline_common.measures import Degradation
from pipeline_common.model_location import ResolvedModels, model_folder

if TYPE_CHECKING:
    from jobs.evaluate.model_generation import Generated
    from jobs.evaluate.model_reading import EncodedPrompts
    from pipeline_common.gpu.models import Placement

ROLES: Final = ("base", "tuned")


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
    clock: PhaseClock,
) -> PairReading:
    """Everything that needs the two models; their memory is free again afterwards."""
    from jobs.evaluate import model_reading
    from jobs.evaluate.model import free_memory, load_pair

    config = context.config.evaluate
    prompt_format = context.config.prepare.prompt_format
    with clock.phase("load"):
        folder = model_folder(models.base, context.store)
        pair = load_pair(folder, context.input_file("train", "adapter"), placement, prompt_format)
        prompts = model_reading.encode_selected(pair, selected, prompt_format, config)
        words = known_words(context, pair.tokenizer, embedded=models.base.kind == "embedded")
    lesser: list[Degradation] = []

    def degrade(name: str, detail: str) -> None:
        lesser.append(context.degrade(name, detail))

    with clock.phase("activations"):
        payload = _describe_base(models, placement, prompts, config, model_reading.chosen_sweep(pair, config))
        known = find_base(context, payload)
        base = known[0] if known else model_reading.read_activations(pair, prompts, config, "base", degrade)
        if known is None:
            keep_base(context, payload, base)
        activations = {"base": base, "tuned": model_reading.read_activations(pair, prompts, config, "tuned", degrade)}
        ruler = _fit_ruler(activations["base"], selected, config)
    with clock.phase("answers"):
        answers = model_reading.read_answers(pair, prompts, config)
    with clock.phase("refusal log-odds"):
        openings = model_reading.find_openings(pair, prompts, answers, config)
        log_odds = None
        if isinstance(openings, OpeningSet):
            log_odds = model_reading.read_log_odds(pair, prompts, openings, config)
    del pair
    free_memory()
    source = known[1] if known else "measured in this run"
    return PairReading(
        selected, prompts.answered, activations, source, ruler, answers, openings, log_odds, words, tuple(lesser)
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
