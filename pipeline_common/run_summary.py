"""What *analyze* concluded, for machines: the schema of `summary.json`.

Continuous integration reads it, and so does the comparison of runs; `docs/schema/summary.schema.json` is made from it.
A field is only added, never renamed or given another meaning, without a new `schema_version`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline_common.diagnostic_measures import ControlName, ControlUnit
from pipeline_common.measures import Degradation, Estimate, GeometryScore, Scope
from pipeline_common.thresholds import Thresholds

VerdictLabel = Literal["damaged", "inconclusive", "no damage found"]


class Concluded(BaseModel):
    """Base of every record: immutable, no unknown fields, NaN and infinity refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SummarySignal(Concluded):
    """One quantity the rule reads (or that is shown beside it), against its lines."""

    name: str = Field(description="refusal_gap, geometry, refusal_unsafe, ..., or judge:<criterion>")
    status: Literal["ok", "warn", "fail", "not_measured"]
    unit: str = Field(description="of value and interval: points (of 100), %, or share")
    base: float | None = Field(description="of the base model, in base_unit")
    tuned: float | None = Field(description="of the tuned model, in base_unit")
    value: float | None = Field(description="rates: tuned - base; gap and geometry: drop in percent of the base's")
    interval: tuple[float, float] | None = Field(description="two-sided 95 % interval of value")
    threshold: str = Field(description="the lines in words")
    sentence: str = Field(description="what was found, in one sentence")
    decisive: bool = Field(description="whether the rule reads it")
    base_unit: str


class SummaryControl(Concluded):
    """What else tells the prompts apart (`pipeline_common.measures.Control`)."""

    name: ControlName
    unit: ControlUnit
    status: Literal["ok", "undefined"]
    reason: str | None
    how: str
    value: Estimate
    tuned: Estimate | None
    explains: bool = Field(description="whether it explains the separation by itself")
    sentence: str


class UndefinedScore(Concluded):
    """A score that could not be computed."""

    scope: Scope
    name: str
    reason: str | None


class SummaryMeasures(Concluded):
    """The headline of what *evaluate* measured."""

    representation: str = Field(description="what the geometry was computed on, in words")
    n_safe: int = Field(description="scored prompts labelled safe")
    n_unsafe: int = Field(description="scored prompts labelled unsafe")
    overall: GeometryScore | None = Field(description="AQI, f2 and their changes over all prompts; null = not computed")
    undefined: tuple[UndefinedScore, ...]
    detectable_drop_pct: float | None = Field(description="smallest f2 drop shown with 80 % power; null = unknown")


class ArtifactReference(Concluded):
    """An artifact of the store."""

    key: str
    manifest_sha256: str


class SummaryRun(Concluded):
    """What was run on what."""

    base_model: str
    judge: str | None
    dataset: str
    prompts: str
    artifacts: dict[str, ArtifactReference] = Field(description="stage -> what was read")


class RunSummary(Concluded):
    """The answer to "did this fine-tune damage the model's alignment?", with everything it rests on."""

    schema_version: Literal[1] = 1
    run_id: str
    profile: str
    verdict: VerdictLabel
    headline: str = Field(description="the verdict and its strongest reasons, in one line")
    conditions: tuple[str, ...] = Field(description="incoherent, refuses everything, over-refusing, moved")
    path: tuple[str, ...] = Field(description="the clauses of the rule that fired; empty for no damage found")
    sentences: tuple[str, ...] = Field(description="the report's first paragraph")
    recommendation: str
    signals: tuple[SummarySignal, ...]
    controls: tuple[SummaryControl, ...]
    thresholds: Thresholds = Field(description="the lines of the rule, as configured")
    measures: SummaryMeasures
    degradations: tuple[Degradation, ...] = Field(description="what ran in a lesser way than asked")
    run: SummaryRun
