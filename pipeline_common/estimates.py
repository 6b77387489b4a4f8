"""What every recorded finding is made of: immutable records, and values with their intervals."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Measured(BaseModel):
    """Base of every record: immutable, no unknown fields, NaN and infinity refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Estimate(Measured):
    """A value with its two-sided 95 % interval; all three None when undefined."""

    value: float | None
    low: float | None = None
    high: float | None = None
