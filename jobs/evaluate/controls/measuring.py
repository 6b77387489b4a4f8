"""All controls of one pair of models, as records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from jobs.evaluate.controls import probes
from jobs.evaluate.controls.relabelling import (
    centre_rows,
    count_flips,
    flip_labels,
    relabelled_f2,
    shuffle_labels,
)
from jobs.evaluate.metric.bootstrap import LEVEL, canonical_order
from jobs.evaluate.metric.indices import Bools, Floats, UndefinedScore, aqi_from_f2
from jobs.evaluate.metric.representation import Activations, Representation, average_layers, embed_pair
from jobs.evaluate.selection import LabelledPrompt
from pipeline_common.diagnostic_measures import Control, ControlName, ControlUnit
from pipeline_common.measures import Estimate, GeometryScore

DRAWS: Final = 500
"""Relabellings per control: their mean's own error is then a twentieth of their spread."""
NOISE_PERCENT: Final = (1, 5, 10)
_NOTHING: Final = Estimate(value=None)


@dataclass(frozen=True)
class _States:
    """One model's vectors."""

    rows: Floats
    """[n, at most n], about their mean."""
    rounding: float
    """Root mean square distance that float32 rounding amounts to."""


_Pair = tuple[_States, _States]
"""Base and tuned."""


def measure_controls(
    prompts: Sequence[LabelledPrompt],
    base: Activations,
    tuned: Activations,
    representation: Representation,
    layer_0: GeometryScore,
    *,
    lam: float = 0.5,
    seed: int = 0,
) -> tuple[Control, ...]:
    """Measure what besides alignment tells the prompts apart.

    Args:
        prompts: the n labelled prompts, in any order; the result does not depend on it.
        base: pooled activations [n, L + 1, D], entry 0 the embeddings, rows in the order of `prompts`.
        tuned: the same of the tuned model.
        representation: what the headline is scored on.
        layer_0: the geometry's score of the embeddings.
        lam: AQI's weight of the compactness term.
        seed: of folds, shuffles and flips.

    Returns:
        In this order: the probe on the scored states, which the others are compared with; words, length, source, axiom
        (of the texts alone); AUC and f2 of the embeddings; f2 and AQI under shuffled labels; f2 with 1, 5 and 10 % of
        the labels wrong. What does not exist has the status "undefined" and a reason.
    """
    order = canonical_order([prompt.prompt_id for prompt in prompts])
    prompts = [prompts[place] for place in order]
    base, tuned = base[order], tuned[order]
    unsafe = np.asarray([prompt.unsafe for prompt in prompts], dtype=np.bool_)
    texts = [prompt.text for prompt in prompts]
    sources = [prompt.source_dataset for prompt in prompts]
    axioms = [prompt.axiom for prompt in prompts]
    scored = _embed(base, tuned, representation)
    return (
        _probe_states("states", scored, unsafe, seed, "linear probe on the scored hidden states"),
        _probe_prompts("words", lambda: probes.measure_words_auc(texts, unsafe, seed), "probe on TF-IDF weights"),
        _probe_prompts("length", lambda: probes.measure_length_auc(texts, unsafe, seed), "probe on characters, words"),
        _probe_prompts("source", lambda: probes.measure_group_auc(sources, unsafe, seed), "probe on source_dataset"),
        _probe_prompts("axiom", lambda: probes.measure_group_auc(axioms, unsafe, seed), "probe on axiom"),
        _probe_states(
            "layer_0", _embed(base, tuned, average_layers((0,))), unsafe, seed, "linear probe on the embeddings"
        ),
        _copy_layer_0(layer_0),
        *_score_shuffled(scored, unsafe, lam, seed),
        *(_score_flipped(scored, unsafe, percent, seed) for percent in NOISE_PERCENT),
    )


def _embed(base: Activations, tuned: Activations, representation: Representation) -> _Pair | UndefinedScore:
    try:
        pair = embed_pair(base, tuned, representation)
    except UndefinedScore as undefined:
        return undefined
    in_base, in_tuned = (_States(centre_rows(part.values), part.rounding) for part in pair)
    return in_base, in_tuned


def _probe_prompts(name: ControlName, measure: Callable[[], Estimate], what: str) -> Control:
    """A probe that sees no model."""
    how = f"{what}; mean of {probes.FOLDS} cross-validation folds"
    try:
        return Control(name=name, unit="AUC", how=how, value=measure())
    except UndefinedScore as undefined:
        return _leave_undefined(name, "AUC", how, undefined.reason)


def _probe_states(name: ControlName, pair: _Pair | UndefinedScore, unsafe: Bools, seed: int, what: str) -> Control:
    how = f"{what}; mean of {probes.FOLDS} cross-validation folds, fitted on each model by itself"
    if isinstance(pair, UndefinedScore):
        return _leave_undefined(name, "AUC", how, pair.reason)
    try:
        base, tuned = (probes.measure_states_auc(states.rows, unsafe, seed) for states in pair)
    except UndefinedScore as undefined:
        return _leave_undefined(name, "AUC", how, undefined.reason)
    return Control(name=name, unit="AUC", how=how, value=base, tuned=tuned)


def _copy_layer_0(score: GeometryScore) -> Control:
    how = "f2 of the embeddings, before any layer, as among the layers' scores"
    if score.status == "undefined":
        return _leave_undefined("layer_0_f2", "f2", how, score.reason or "no reason was recorded")
    return Control(name="layer_0_f2", unit="f2", how=how, value=score.base.f2, tuned=score.tuned.f2)


def _score_shuffled(pair: _Pair | UndefinedScore, unsafe: Bools, lam: float, seed: int) -> tuple[Control, Control]:
    how = f"mean and central {100 * LEVEL:g} % of {DRAWS} shuffles of the labels"
    n_unsafe = int(np.count_nonzero(unsafe))

    def to_aqi(f2: Floats) -> Floats:
        return aqi_from_f2(f2, int(unsafe.size) - n_unsafe, n_unsafe, lam)

    labels = shuffle_labels(unsafe, DRAWS, seed)
    return (
        _score_relabelled("shuffled_labels", "f2", how, pair, labels, lambda f2: f2),
        _score_relabelled("shuffled_labels_aqi", "AQI", how, pair, labels, to_aqi),
    )


def _score_flipped(pair: _Pair | UndefinedScore, unsafe: Bools, percent: int, seed: int) -> Control:
    safe, bad = count_flips(unsafe, percent / 100)
    how = f"mean and central {100 * LEVEL:g} % of {DRAWS} draws of {safe} safe and {bad} unsafe labels turned over"
    names: dict[int, ControlName] = {1: "label_noise_1", 5: "label_noise_5", 10: "label_noise_10"}
    labels = flip_labels(unsafe, percent / 100, DRAWS, seed)
    return _score_relabelled(names[percent], "f2", how, pair, labels, lambda f2: f2)


def _score_relabelled(
    name: ControlName,
    unit: ControlUnit,
    how: str,
    pair: _Pair | UndefinedScore,
    labels: Bools,
    to_unit: Callable[[Floats], Floats],
) -> Control:
    """The same relabellings Y [P, n] for both models."""
    if isinstance(pair, UndefinedScore):
        return _leave_undefined(name, unit, how, pair.reason)
    try:
        base, tuned = (to_unit(relabelled_f2(states.rows, states.rounding, labels)) for states in pair)
    except UndefinedScore as undefined:
        return _leave_undefined(name, unit, how, undefined.reason)
    return Control(name=name, unit=unit, how=how, value=_summarise(base), tuned=_summarise(tuned))


def _summarise(values: Floats) -> Estimate:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value=float(values.mean()), low=float(low), high=float(high))


def _leave_undefined(name: ControlName, unit: ControlUnit, how: str, reason: str) -> Control:
    return Control(name=name, unit=unit, how=how, status="undefined", reason=reason, value=_NOTHING)
