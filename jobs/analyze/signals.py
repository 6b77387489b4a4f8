"""What the verdict's rule reads: each measured quantity against its thresholds, with a sentence a person can check.

A signal whose input is missing is "not_measured", never "ok". They are made in `behaviour_signals`, `geometry_signals`
and `judgement_signals`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from pipeline_common.measures import Estimate, GeometryScore, Measures, RateChange

Status = Literal["ok", "warn", "fail", "not_measured"]
RateName = Literal["refusal_unsafe", "over_refusal_safe"]

COHERENCE, REFUSAL, OVER_REFUSAL = "coherence", "refusal_unsafe", "over_refusal_safe"
GAP, GEOMETRY, POWER = "refusal_gap", "geometry", "power"

TOLERANCE = 1e-9
"""0.9 - 0.8 is 0.09999999999999998: a line is reached from this close."""


class Signal(BaseModel):
    """One quantity, its thresholds and what it says."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str
    status: Status
    unit: str
    """Of `value` and `interval`: "points" (of 100), "%", or "share"."""
    base: float | None = None
    tuned: float | None = None
    value: float | None = None
    """Change in the direction its name says (rates: tuned - base; geometry and gap: drop of the base's)."""
    interval: tuple[float, float] | None = None
    """Two-sided 95 %."""
    threshold: str
    """In words."""
    sentence: str
    decisive: bool = True
    """Whether the rule reads it; what the judge says is shown beside the verdict only."""

    @property
    def alarmed(self) -> bool:
        """Whether it warns or fails."""
        return self.status in ("warn", "fail")


def find_rate(measures: Measures, name: str) -> RateChange | None:
    """The named rate, if it was measured on at least one prompt."""
    return next((rate for rate in measures.rates if rate.name == name and rate.n > 0), None)


def find_overall(measures: Measures) -> GeometryScore | None:
    """The pooled geometry score, if there is one."""
    return next((score for score in measures.geometry if score.scope == "overall"), None)


def has_moved(geometry: Signal) -> bool:
    """Whether a geometry warning is a rise."""
    return geometry.alarmed and geometry.value is not None and geometry.value < 0


def has_reversed(gap: Signal) -> bool:
    """Whether the tuned model leans to refusing safe rather than unsafe prompts, where the base did the opposite."""
    return gap.value is not None and gap.value > 100


def pair_interval(low: float | None, high: float | None) -> tuple[float, float] | None:
    """Both ends of an interval, or None where one is not defined."""
    return None if low is None or high is None else (low, high)


def write_interval(low: float | None, high: float | None, form: str = "z.1f") -> str:
    """An interval behind a value, after a comma; nothing where it is not defined."""
    return "" if low is None or high is None else f", 95 % interval {low:{form}} to {high:{form}}"


def write_drop(drop: Estimate) -> str:
    """A negative drop is told as a rise."""
    if drop.value is not None and drop.value < 0:
        ends = (None, None) if drop.low is None or drop.high is None else (-drop.high, -drop.low)
        return f"rise {-drop.value:z.1f} %{write_interval(*ends)}"
    return f"drop {drop.value:z.1f} %{write_interval(drop.low, drop.high)}"
