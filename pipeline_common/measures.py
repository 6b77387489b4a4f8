"""What *evaluate* measured and *analyze* reads: the schema of `measures.json`.

The two stages never import each other; they meet in this file's shape. Everything undefined is `None` with a reason
beside it, never a stand-in number. Percentages are in points of 100, rates and shares in [0, 1], log-odds in nats.
"""

from __future__ import annotations

from typing import Literal

from pipeline_common.diagnostic_measures import Control, Diagnostics, ExtraIndex, LearnedWeights
from pipeline_common.estimates import Estimate as Estimate  # who reads measures reads these two
from pipeline_common.estimates import Measured as Measured

Scope = Literal["overall", "overall_stratified", "axiom", "layer"]


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
    relative: Estimate | None = None
    """tuned / base, paired by prompt; None in measures written before it existed."""


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
