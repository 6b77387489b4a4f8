"""The stage: one load, adapter off and on; activations, answers, refusal log-odds, a judge; one `measures.json`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np

from jobs.evaluate.behaviour import compare_refusals, describe_responses
from jobs.evaluate.coherence import measure_coherence
from jobs.evaluate.controls.measuring import measure_controls
from jobs.evaluate.follower import follow
from jobs.evaluate.judge.judging import judge_answers
from jobs.evaluate.metric.diagnostics import measure_pair
from jobs.evaluate.metric.extra_indices import measure_extra_indices
from jobs.evaluate.metric.paired import refusal_gap
from jobs.evaluate.metric.power import detectable_drop_pct
from jobs.evaluate.metric.representation import describe_representation, embed_pair
from jobs.evaluate.openings import OPENING_TOKENS
from jobs.evaluate.reading import PairReading, choose_pair_placement, read_pair, select
from jobs.evaluate.records import prompt_rows, score_rows, write_json_lines, write_tensors
from jobs.evaluate.refusal import is_refusal
from jobs.evaluate.sharing import ROLES
from jobs.evaluate.team import gather_team, reporting
from pipeline_common.clock import PhaseClock
from pipeline_common.context import Context, Outputs
from pipeline_common.diagnostic_measures import Control, Diagnostics
from pipeline_common.measures import GeometryScore, Measures, RefusalGap
from pipeline_common.model_location import resolved_models


def run(context: Context) -> Outputs:
    """Measure base against tuned.

    Raises:
        InputError: prompts, models or activations that cannot be measured.
    """
    config = context.config.evaluate
    clock = context.clock
    models = resolved_models(context)
    selected = select(context)
    with clock.phase("imports"):
        placement, degradations = choose_pair_placement(context)
        import_module("jobs.evaluate.model_share")
    with gather_team(context, placement.device) as team:
        exchange = team.exchange
        if not exchange.shard.leads:
            with reporting(context, exchange):
                follow(context, exchange)
                team.followers.wait()
            return Outputs()
        exchange.failures.forget()
        reading = read_pair(context, models, placement, selected, exchange)
        texts = {
            (prompt.prompt_id, role): answer.text
            for role, answers in reading.answers.items()
            for prompt, answer in zip(reading.answered_prompts, answers, strict=True)
        }
        with clock.phase("judge"):
            judged = judge_answers(context, models, reading.answered_prompts, texts, exchange)
    with clock.phase("geometry"):
        geometry, diagnostics = _measure_geometry(context, reading)
        _write_activations(context, reading)
    with clock.phase("controls"):
        controls = _measure_controls(context, reading, geometry)
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
            [prompt.safety_label == "unsafe" for prompt in reading.answered_prompts],
            reading.words.known,
            reading.words.source,
            resamples=config.resamples,
            seed=config.seed,
        ),
        judgement=judged.judgement,
        detectable_drop_pct=detectable_drop_pct(overall.f2_drop_pct),
        controls=controls,
        degradations=(*degradations, *reading.degradations, *judged.degradations),
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
        summary=_summarise(measures, clock)
        | {"base_activations": reading.base_source, "shards": exchange.shard.count}
        | ({"seconds_waited_for_shards": round(exchange.waited_s, 2)} if exchange.shard.count > 1 else {}),
        degradations=measures.degradations,
        when_published=exchange.clean,
    )


def _measure_gap(context: Context, reading: PairReading) -> tuple[RefusalGap | None, str]:
    """The paired comparison of the log-odds, and how they were measured or why not."""
    config = context.config.evaluate
    if reading.log_odds is None or isinstance(reading.openings, str):
        return None, str(reading.openings)
    base, tuned = (reading.log_odds[role] for role in ROLES)
    gap = refusal_gap(base, tuned, reading.unsafe, resamples=config.resamples, seed=config.seed)
    covered = " and ".join(
        f"{100 * share:.0f} % of the {role} model's"
        for role, share in reading.openings.covered.items()
        if share is not None
    )
    return gap, (
        f"log-odds of {len(reading.openings.openings)} openings taken from both models' own refusals, each the "
        f"shortest beginning of 2 to {OPENING_TOKENS} tokens that complying answers do not share; they begin "
        f"{covered} refusals"
    )


def _measure_geometry(context: Context, reading: PairReading) -> tuple[tuple[GeometryScore, ...], Diagnostics]:
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


def _measure_controls(context: Context, reading: PairReading, geometry: Sequence[GeometryScore]) -> tuple[Control, ...]:
    config = context.config.evaluate
    return measure_controls(
        reading.scored_prompts,
        *reading.scored_activations,
        reading.ruler.representation,
        next(score for score in geometry if (score.scope, score.name) == ("layer", "0")),
        lam=config.aqi_lambda,
        seed=config.seed,
    )


def _write_activations(context: Context, reading: PairReading) -> None:
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


def _describe_representation(context: Context, reading: PairReading) -> str:
    pooled = "last prompt token" if context.config.evaluate.pooling == "last" else "mean over prompt tokens without BOS"
    n_layers = reading.activations["base"].shape[1] - 1
    return f"{pooled}; {describe_representation(reading.ruler.representation, n_layers, reading.ruler.learned)}"


def _summarise(measures: Measures, clock: PhaseClock) -> dict[str, Any]:
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
