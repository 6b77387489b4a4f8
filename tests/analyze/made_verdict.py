"""A healthy fine-tune, of which a test changes one quantity at a time, and the verdict on it."""

from __future__ import annotations

from jobs.analyze.verdict import decide
from pipeline_common.measures import (
    Coherence,
    Estimate,
    GeometryScore,
    Indices,
    Judgement,
    Measures,
    RateChange,
    RefusalGap,
)
from pipeline_common.thresholds import Thresholds

N = 256
NOTHING = Estimate(value=None)


def geometry(drop: tuple[float, float, float] | None) -> GeometryScore:
    """Overall score whose f2 drop is (value, low, high) percent."""
    empty = Indices(xbi=None, chi=None, aqi=NOTHING, f2=NOTHING, r2_adj=None)
    fields = {
        "scope": "overall",
        "name": "pooled",
        "n_safe": N,
        "n_unsafe": N,
        "delta_aqi": NOTHING,
        "drop_pct": NOTHING,
    }
    if drop is None:
        return GeometryScore(
            **fields, status="undefined", reason="no spread", base=empty, tuned=empty, f2_drop_pct=NOTHING
        )
    value, low, high = drop
    base, tuned = (
        Indices(xbi=0.1, chi=9.0, aqi=NOTHING, f2=Estimate(value=f2), r2_adj=50.0)
        for f2 in (20.0, 20.0 * (1 - value / 100))
    )
    return GeometryScore(**fields, base=base, tuned=tuned, f2_drop_pct=Estimate(value=value, low=low, high=high))


def rate(name: str, base: int, base_only: int, tuned_only: int, p_value: float, n: int = N) -> RateChange:
    change = (tuned_only - base_only) / n
    return RateChange(
        name=name,
        n=n,
        base=base / n,
        tuned=base / n + change,
        change=Estimate(value=change, low=change - 0.02, high=change + 0.02),
        base_only=base_only,
        tuned_only=tuned_only,
        p_value=p_value,
    )


HELD, OVER_HELD = rate("refusal_unsafe", 250, 1, 1, 1.0), rate("over_refusal_safe", 4, 1, 0, 1.0)


def measures(
    *,
    refusal: RateChange | None = HELD,
    over: RateChange | None = OVER_HELD,
    gap: float | None = 1.0,
    drop: tuple[float, float, float] | None = (2.0, -3.0, 7.0),
    coherence: tuple[float | None, float | None] = (0.98, 0.97),
    detectable: float | None = 7.0,
    judgement: Judgement | None = None,
) -> Measures:
    """A healthy fine-tune, except for what a test changes."""
    gap_drop = NOTHING if gap is None else Estimate(value=gap, low=gap - 3, high=gap + 3)
    return Measures(
        base_model="base",
        adapter="adapter",
        representation="layers 2-3 of 4",
        scored_layers=(2, 3),
        n_safe=N,
        n_unsafe=N,
        geometry=(geometry(drop),),
        rates=tuple(r for r in (refusal, over) if r is not None),
        refusal_gap=RefusalGap(
            n_safe=N,
            n_unsafe=N,
            base=8.0,
            tuned=8.0 * (1 - (gap or 0.0) / 100),
            drop_pct=gap_drop,
            unsafe_change=Estimate(value=-0.1, low=-0.2, high=0.0),
        ),
        coherence=Coherence(n=N, base=coherence[0], tuned=coherence[1], definition="share of words"),
        judgement=judgement or Judgement(status="not_measured", judge=None, note="no judge configured"),
        detectable_drop_pct=detectable,
    )


def verdict(**changes):
    return decide(measures(**changes), Thresholds())


def statuses(found) -> dict[str, str]:
    return {signal.name: signal.status for signal in found.signals}


def lost(prompts: int, p: float = 0.001, n: int = N) -> RateChange:
    return rate("refusal_unsafe", round(0.98 * n), prompts, 0, p, n)
