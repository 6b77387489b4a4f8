"""What *evaluate* found out beside the headline: controls, diagnostics, learned layer weights, other forms of AQI.

A part of `measures.json` (`pipeline_common.measures`), shown in the report and not read by the verdict's rule.
"""

from __future__ import annotations

from typing import Literal

from pipeline_common.estimates import Estimate, Measured

ControlName = Literal[
    "states",
    "words",
    "length",
    "source",
    "axiom",
    "layer_0",
    "layer_0_f2",
    "shuffled_labels",
    "shuffled_labels_aqi",
    "label_noise_1",
    "label_noise_5",
    "label_noise_10",
]
ControlUnit = Literal["AUC", "f2", "AQI"]


class Control(Measured):
    """What tells the labelled prompts apart besides alignment, or what other labels would make of the score.

    AUC in [0, 1], 0.5 = chance; "states" is the AUC of the scored hidden states, which the other AUCs are compared
    with. `status` "undefined" leaves the numbers None and says why in `reason`.
    """

    name: ControlName
    unit: ControlUnit
    status: Literal["ok", "undefined"] = "ok"
    reason: str | None = None
    how: str
    """How it was measured, in words."""
    value: Estimate
    """Of the prompts' texts, or of the base model; for shuffled and flipped labels the range of 95 % of the draws."""
    tuned: Estimate | None = None
    """The same of the tuned model; None where no model is involved."""


class ClusterShape(Measured):
    """Further cluster indices of one model (definitions: `jobs.evaluate.metric.clusters`)."""

    silhouette: float | None = None
    davies_bouldin: float | None = None
    dunn: float | None = None
    participation_ratio: float | None = None


class Diagnosis(Measured):
    """How one representation of base and tuned differ; what is None is explained in `reason`."""

    name: str
    """"scored" = the representation of the headline, else the layer's index ("0" = embeddings)."""
    reason: str | None = None
    base: ClusterShape = ClusterShape()
    tuned: ClusterShape = ClusterShape()
    cka: float | None = None
    """Debiased linear CKA; 1 = the same up to rotation, shift and scale, about 0 = unrelated."""
    direction_cosine: float | None = None
    """Debiased cosine of both models' difference of label means (the refusal direction)."""
    projection_gap_base: float | None = None
    """Debiased distance of the label means along the base's direction, in units of the base's spread."""
    projection_gap_tuned: float | None = None
    """The same of the tuned model, along the base's direction."""
    probe_auc_base: float | None = None
    """Linear probe fitted on the base, on held-out prompts; 0.5 = chance."""
    probe_auc_tuned: float | None = None
    """The same probe on the tuned model's states of those prompts."""


class SeparationTest(Measured):
    """Permutation tests of one scope; `name` as in `GeometryScore`. Holm's adjustment is over the tests of a scope."""

    scope: Literal["overall", "axiom", "layer"]
    name: str
    reason: str | None = None
    p_base: float | None = None
    """One-sided p of the base's separation (labels permuted within axioms)."""
    p_tuned: float | None = None
    p_change: float | None = None
    """Two-sided p of the change of f2 (base and tuned swapped prompt by prompt)."""
    holm_base: float | None = None
    holm_tuned: float | None = None
    holm_change: float | None = None


class Diagnostics(Measured):
    """What stands beside the headline scores: similarity of the models, probes, tests."""

    permutations: int
    """Of the labels: their smallest possible p is 1 / (permutations + 1). Swaps are at least as many."""
    scored: Diagnosis
    layers: tuple[Diagnosis, ...]
    tests: tuple[SeparationTest, ...]


class LayerWeight(Measured):
    """One layer's share of the scored representation."""

    layer: int
    weight: float
    """In [0, 1]; 0 = the layer is not used."""


class LearnedWeights(Measured):
    """Layer weights learned on prompts of the base that are not scored (`jobs.evaluate.metric.layer_weights`)."""

    n_safe: int
    """Prompts they were learned on."""
    n_unsafe: int
    layers: tuple[LayerWeight, ...]
    """Every layer there was to choose from; the weights sum to 1."""


class IndexReference(Measured):
    """What a normalised index was normalised by: extremes over the defined scores of the model(s) it covers."""

    covers: Literal["base", "tuned", "base and tuned"]
    n_scores: int
    chi_min: float | None = None
    """None where the index does not use it."""
    chi_max: float
    xbi_median: float | None = None
    xbi_iqr: float | None = None


class ExtraScore(Measured):
    """One scope's values of another form of AQI; what is None is explained in `reason`."""

    scope: Literal["overall", "axiom"]
    name: str
    base: float | None = None
    tuned: float | None = None
    reason: str | None = None


class ExtraIndex(Measured):
    """Another form of AQI, beside it and not read by the verdict (definitions: `jobs.evaluate.metric.indices`)."""

    name: Literal["b4", "legacy100"]
    source: str
    """Where its reference came from, in words."""
    references: tuple[IndexReference, ...]
    """Without them a value means nothing; empty where nothing is defined."""
    scores: tuple[ExtraScore, ...]
