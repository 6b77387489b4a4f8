"""What *evaluate* measured and *analyze* reads: the schema of `measures.json`.

The two stages never import each other; they meet in this file's shape. Everything undefined is `None` with a reason
beside it, never a stand-in number. Percentages are in points of 100, rates and shares in [0, 1], log-odds in nats.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Scope = Literal["overall", "overall_stratified", "axiom", "layer"]


class Measured(BaseModel):
    """Base of every record: immutable, no unknown fields, NaN and infinity refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Estimate(Measured):
    """A value with its two-sided 95 % interval; all three None when undefined."""

    value: float | None
    low: float | None = None
    high: float | None = None


class Indices(Measured):
    """Cluster separation of one model's two labelled groups (definitions: `jobs.evaluate.metric.indices`)."""

    xbi: float | None
    chi: float | None
    aqi: Estimate
    f2: Estimate
    r2_adj: float | None


class GeometryScore(Measured):
    """Base against tuned on the same prompts, for one scope.

    `name` is "pooled" for overall, "mean of axioms" for overall_stratified, the axiom's name, or the layer's index
    ("0" = embeddings). `status` "undefined" leaves every number None and says why in `reason`.
    """

    scope: Scope
    name: str
    n_safe: int
    n_unsafe: int
    status: Literal["ok", "undefined"] = "ok"
    reason: str | None = None
    base: Indices
    tuned: Indices
    delta_aqi: Estimate
    """tuned - base; positive = better separated."""
    drop_pct: Estimate
    """100 (base - tuned) / base of AQI: the paper's sense, positive = lost separation."""
    f2_drop_pct: Estimate
    """The same of the size-free f2: what the verdict reads."""


class RateChange(Measured):
    """A yes/no behaviour of both models on the same prompts, compared pairwise.

    `change` is tuned - base. `p_value` is McNemar's exact test on the discordant pairs.
    """

    name: Literal["refusal_unsafe", "over_refusal_safe"]
    n: int
    base: float
    tuned: float
    change: Estimate
    base_only: int
    tuned_only: int
    p_value: float


class RefusalGap(Measured):
    """Mean log-odds of a refusal opening on unsafe prompts minus the same on safe prompts, in nats."""

    n_safe: int
    n_unsafe: int
    base: float
    tuned: float
    drop_pct: Estimate
    """100 (base - tuned) / base, paired by prompt; None when base's gap is not positive."""
    unsafe_change: Estimate
    """Mean paired change (tuned - base) on unsafe prompts alone, in nats."""


class Coherence(Measured):
    """Share of generated words that are words, per model: the gate before any claim about behaviour."""

    n: int
    base: float | None
    tuned: float | None
    definition: str


class JudgeScore(Measured):
    """One criterion scored by the judge: expected digit 1-5 rescaled to [0, 1], paired by prompt."""

    criterion: str
    asked_of: Literal["safe", "unsafe", "all"]
    n: int
    missing_base: int
    missing_tuned: int
    base: float | None
    tuned: float | None
    change: Estimate
    mass_base: float | None = None
    """Mean probability of the digits 1-5 over base's judged answers (share of parsed samples without logprobs)."""
    mass_tuned: float | None = None
    unparsed_base: int = 0
    """Of the missing: answers of the judge outside the form. The rest of them failed or were not asked."""
    unparsed_tuned: int = 0


class Judgement(Measured):
    """What the judge said, or that it was not measured and why."""

    status: Literal["measured", "not_measured"]
    judge: str | None
    note: str
    scores: tuple[JudgeScore, ...] = ()


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


class Degradation(Measured):
    """Something that ran in a lesser way than asked: named, recorded, shown in the report."""

    stage: str
    name: str
    detail: str


class Measures(Measured):
    """Everything *evaluate* found out about one pair of models."""

    schema_version: Literal[1] = 1
    base_model: str
    adapter: str
    """Fingerprint of the train artifact."""
    representation: str
    """What the headline geometry was computed on, in words (pooling, layers, normalisation)."""
    scored_layers: tuple[int, ...]
    """The layers averaged for it; 0 = embeddings."""
    learned_weights: LearnedWeights | None = None
    """None where the scored layers weigh alike."""
    n_safe: int
    """Scored prompts; those that layer weights were learned on are not among them."""
    n_unsafe: int
    geometry: tuple[GeometryScore, ...]
    rates: tuple[RateChange, ...]
    refusal_gap: RefusalGap | None
    """None where it cannot be measured: neither model refuses anything."""
    refusal_gap_note: str = ""
    """How the gap was measured, or why not."""
    coherence: Coherence
    judgement: Judgement
    detectable_drop_pct: float | None
    """Smallest f2 drop this n shows with 80 % power, in percent; None when it cannot be estimated."""
    controls: tuple[Control, ...] = ()
    """What else tells the prompts apart, in the order the report shows it."""
    degradations: tuple[Degradation, ...] = ()
    diagnostics: Diagnostics | None = None
    """None in measures written before it existed."""
    extra_indices: tuple[ExtraIndex, ...] = ()
    """As asked for by evaluate.extra_indices."""
