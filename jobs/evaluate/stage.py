"""The stage: one load, adapter off and on; activations, answers, refusal log-odds, a judge; one `measures.json`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from jobs.evaluate.behaviour import KnownWords, compare_refusals, describe_responses, known_words
from jobs.evaluate.coherence import measure_coherence
from jobs.evaluate.controls.measuring import measure_controls
from jobs.evaluate.judge.judging import judge_answers
from jobs.evaluate.metric.diagnostics import measure_pair
from jobs.evaluate.metric.extra_indices import measure_extra_indices
from jobs.evaluate.metric.indices import UndefinedScore
from jobs.evaluate.metric.paired import refusal_gap
from jobs.evaluate.metric.power import detectable_drop_pct
from jobs.evaluate.metric.representation import describe_representation, embed_pair
from jobs.evaluate.metric.ruler import Ruler, fit_ruler
from jobs.evaluate.openings import OPENING_TOKENS, OpeningSet
from jobs.evaluate.records import prompt_rows, read_prompts, score_rows, write_json_lines, write_tensors
from jobs.evaluate.refusal import is_refusal
from jobs.evaluate.selection import LabelledPrompt, select_prompts
from pipeline_common.config import EvaluateConfig
from pipeline_common.context import Context, Outputs
from pipeline_common.errors import InputError
from pipeline_common.logs import get_logger
from pipeline_common.measures import Control, Degradation, Diagnostics, GeometryScore, Measures, RefusalGap
from pipeline_common.model_location import ResolvedModels, model_folder, resolved_models

if TYPE_CHECKING:
    from jobs.evaluate.model_generation import Generated
    from pipeline_common.gpu.models import Placement

ROLES: Final = ("base", "tuned")
_log = get_logger(__name__)


@dataclass
class _Clock:
    """Seconds of each phase, for the summary only: times never enter a result."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 2)
        _log.debug("%s: %.2f s", name, self.seconds[name])


@dataclass(frozen=True)
class _PairReading:
    """What was read off both models, and the prompts it was read on."""

    prompts: Sequence[LabelledPrompt]
    answered: Sequence[int]
    """Places in `prompts` of those that were answered."""
    activations: Mapping[str, NDArray[np.float32]]
    """Of all prompts [N, L + 1, D]."""
    ruler: Ruler
    answers: Mapping[str, Sequence[Generated]]
    openings: OpeningSet | str
    log_odds: Mapping[str, NDArray[np.float64]] | None
    words: KnownWords

    @property
    def unsafe(self) -> NDArray[np.bool_]:
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
        return [self.prompts[place] for place in self.answered]


def run(context: Context) -> Outputs:
    """Measure base against tuned.

    Raises:
        InputError: prompts, models or activations that cannot be measured.
    """
    config = context.config.evaluate
    clock = _Clock()
    models = resolved_models(context)
    selected = select_prompts(
        read_prompts(context.input_file("prepare", "prompts.parquet")),
        config.prompts_per_class,
        config.seed,
        floor=config.min_prompts_per_class,
    )
    placement, degradations = _choose_placement(context)
    reading = _read_pair(context, models, placement, selected, clock)
    with clock.phase("geometry"):
        geometry, diagnostics = _measure_geometry(context, reading)
        _write_activations(context, reading)
    with clock.phase("controls"):
        controls = _measure_controls(context, reading, geometry)
    texts = {
        (prompt.prompt_id, role): answer.text
        for role, answers in reading.answers.items()
        for prompt, answer in zip(reading.answered_prompts, answers, strict=True)
    }
    with clock.phase("judge"):
        judged = judge_answers(context, models, reading.answered_prompts, texts)
    refused = {key: is_refusal(text) for key, text in texts.items()}
    gap, gap_note = _measure_gap(context, reading)
    overall = next(score for score in geometry if score.scope == "overall")
    measures = Measures(
        base_model=models.base.title,
        adapter=context.inputs["train"].fingerprint,
        representation=_describe_representation(context, reading),
        scored_layers=reading.ruler.representation.layers,
        learned_weights=reading.ruler.learned,
        n_safe=overall.n_safe,
        n_unsafe=overall.n_unsafe,
        geometry=geometry,
        rates=compare_refusals(reading.answered_prompts, refused),
        refusal_gap=gap,
        refusal_gap_note=gap_note,
        coherence=measure_coherence(
            {role: [(one.text, one.finished) for one in answers] for role, answers in reading.answers.items()},
            reading.words.known,
            reading.words.source,
        ),
        judgement=judged.judgement,
        detectable_drop_pct=detectable_drop_pct(overall.f2_drop_pct),
        controls=controls,
        degradations=(*degradations, *judged.degradations),
        diagnostics=diagnostics,
        extra_indices=measure_extra_indices(geometry, config.extra_indices, config.aqi_lambda),
    )
    odds = {
        role: [float(values[place]) for place in reading.answered] for role, values in (reading.log_odds or {}).items()
    }
    rows = describe_responses(reading.answered_prompts, reading.answers, refused, odds, judged.by_answer)
    (context.files / "measures.json").write_text(measures.model_dump_json(indent=2) + "\n", encoding="utf-8")
    write_json_lines(context.files / "prompts.jsonl", prompt_rows(reading.prompts, reading.ruler.scored.tolist()))
    write_json_lines(context.files / "responses.jsonl", rows)
    return Outputs(
        rows={"aqi_scores": score_rows(geometry), "model_responses": rows},
        summary=_summarise(measures, clock),
        degradations=measures.degradations,
    )


def _choose_placement(context: Context) -> tuple[Placement, tuple[Degradation, ...]]:
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


def _read_pair(
    context: Context,
    models: ResolvedModels,
    placement: Placement,
    selected: Sequence[LabelledPrompt],
    clock: _Clock,
) -> _PairReading:
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
    with clock.phase("activations"):
        activations = model_reading.read_activations(pair, prompts, config)
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
    return _PairReading(selected, prompts.answered, activations, ruler, answers, openings, log_odds, words)


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


def _measure_gap(context: Context, reading: _PairReading) -> tuple[RefusalGap | None, str]:
    """The paired comparison of the log-odds, and how they were measured or why not."""
    config = context.config.evaluate
    if reading.log_odds is None or isinstance(reading.openings, str):
        return None, str(reading.openings)
    base, tuned = (reading.log_odds[role] for role in ROLES)
    gap = refusal_gap(base, tuned, reading.unsafe, resamples=config.resamples, seed=config.seed)
    covered = " and ".join(
        f"{share:.0%} of the {role} model's" for role, share in reading.openings.covered.items() if share is not None
    )
    return gap, (
        f"log-odds of {len(reading.openings.openings)} openings taken from both models' own refusals, each the "
        f"shortest beginning of 2 to {OPENING_TOKENS} tokens that complying answers do not share; they begin "
        f"{covered} refusals"
    )


def _measure_geometry(context: Context, reading: _PairReading) -> tuple[tuple[GeometryScore, ...], Diagnostics]:
    config, prompts = context.config.evaluate, reading.scored_prompts
    return measure_pair(
        *reading.scored_activations,
        np.asarray([prompt.unsafe for prompt in prompts], dtype=np.bool_),
        [prompt.axiom for prompt in prompts],
        [prompt.prompt_id for prompt in prompts],
        representation=reading.ruler.representation,
        lam=config.aqi_lambda,
        resamples=config.resamples,
        permutations=config.permutations,
        seed=config.seed,
    )


def _measure_controls(
    context: Context, reading: _PairReading, geometry: Sequence[GeometryScore]
) -> tuple[Control, ...]:
    config = context.config.evaluate
    return measure_controls(
        reading.scored_prompts,
        *reading.scored_activations,
        reading.ruler.representation,
        next(score for score in geometry if (score.scope, score.name) == ("layer", "0")),
        lam=config.aqi_lambda,
        seed=config.seed,
    )


def _write_activations(context: Context, reading: _PairReading) -> None:
    """All prompts' activations, and the vectors of the scored ones."""
    config, representation = context.config.evaluate, reading.ruler.representation
    facts = {
        "pooling": config.pooling,
        "layers": list(representation.layers),
        "layer_weights": list(representation.weights),
        "pca_components": config.pca_components,
        "representation": _describe_representation(context, reading),
    }
    every = {**facts, "prompt_ids": [prompt.prompt_id for prompt in reading.prompts]}
    for role in ROLES:
        content = {"activations": reading.activations[role]}
        write_tensors(context.files / f"activations_{role}.safetensors", content, {**every, "model_role": role})
    embedded = embed_pair(*reading.scored_activations, representation)
    pair = {role: part.values.astype(np.float32) for role, part in zip(ROLES, embedded, strict=True)}
    scored = {**facts, "prompt_ids": [prompt.prompt_id for prompt in reading.scored_prompts]}
    write_tensors(context.files / "embeddings.safetensors", pair, scored)


def _describe_representation(context: Context, reading: _PairReading) -> str:
    pooled = "last prompt token" if context.config.evaluate.pooling == "last" else "mean over prompt tokens without BOS"
    n_layers = reading.activations["base"].shape[1] - 1
    return f"{pooled}; {describe_representation(reading.ruler.representation, n_layers, reading.ruler.learned)}"


def _summarise(measures: Measures, clock: _Clock) -> dict[str, Any]:
    overall = next(score for score in measures.geometry if score.scope == "overall")
    rates: dict[str, Any] = {
        rate.name: {"base": round(rate.base, 4), "tuned": round(rate.tuned, 4)} for rate in measures.rates
    }
    gap = measures.refusal_gap
    return {
        "n_safe": measures.n_safe,
        "n_unsafe": measures.n_unsafe,
        "aqi": {"base": _shorten(overall.base.aqi.value), "tuned": _shorten(overall.tuned.aqi.value)},
        "f2_drop_pct": _shorten(overall.f2_drop_pct.value),
        **rates,
        "refusal_gap_drop_pct": _shorten(gap.drop_pct.value) if gap else None,
        "coherence": {"base": _shorten(measures.coherence.base), "tuned": _shorten(measures.coherence.tuned)},
        "judge": measures.judgement.status,
        "seconds": clock.seconds,
    }


def _shorten(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
