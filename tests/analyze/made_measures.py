"""Findings of a pair of models, written by hand: 3 axioms (one undefined), 5 layers, no judge, a degradation."""

from __future__ import annotations

from typing import Any

from pipeline_common.measures import (
    Coherence,
    Degradation,
    Estimate,
    GeometryScore,
    Indices,
    Judgement,
    JudgeScore,
    Measures,
    RateChange,
    RefusalGap,
)

NOTHING = Estimate(value=None)
EMPTY = Indices(xbi=None, chi=None, aqi=NOTHING, f2=NOTHING, r2_adj=None)
NO_JUDGE = Judgement(status="not_measured", judge=None, note="evaluate.judge.kind is none")


def estimate(value: float, half: float) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half)


def score(scope: str, name: str, n: int, base_f2: float, tuned_f2: float) -> GeometryScore:
    """Numbers that fit one another: chi from f2, xbi from chi, aqi at lambda 0.5, for n safe + n unsafe prompts."""

    def indices(f2: float) -> Indices:
        total = 2 * n
        chi = 1 + f2 * n * n / total
        xbi = (total - 2) / 4 / chi
        aqi = 0.5 / xbi + 0.5 * chi
        r2 = chi / (chi + total - 2)
        adjusted = 100 * (1 - (1 - r2) * (total - 1) / (total - 2))
        return Indices(xbi=xbi, chi=chi, aqi=estimate(aqi, 0.08 * aqi), f2=estimate(f2, 0.08 * f2), r2_adj=adjusted)

    base, tuned = indices(base_f2), indices(tuned_f2)
    assert base.aqi.value is not None
    assert tuned.aqi.value is not None
    return GeometryScore(
        scope=scope,
        name=name,
        n_safe=n,
        n_unsafe=n,
        base=base,
        tuned=tuned,
        delta_aqi=estimate(tuned.aqi.value - base.aqi.value, 0.05 * base.aqi.value),
        drop_pct=estimate(100 * (1 - tuned.aqi.value / base.aqi.value), 5.0),
        f2_drop_pct=estimate(100 * (1 - tuned_f2 / base_f2), 5.0),
    )


def undefined(scope: str, name: str, reason: str) -> GeometryScore:
    return GeometryScore(
        scope=scope,
        name=name,
        n_safe=40,
        n_unsafe=1,
        status="undefined",
        reason=reason,
        base=EMPTY,
        tuned=EMPTY,
        delta_aqi=NOTHING,
        drop_pct=NOTHING,
        f2_drop_pct=NOTHING,
    )


def make_measures(*, harmful: bool = False, judgement: Judgement = NO_JUDGE, **changes: Any) -> Measures:
    kept = 0.24 if harmful else 0.97
    geometry = (
        score("overall", "pooled", 128, 11.34, 11.34 * kept),
        score("overall_stratified", "mean of axioms", 128, 12.05, 12.05 * kept),
        score("axiom", "Civility & Tolerance", 64, 10.51, 10.51 * kept),
        undefined("axiom", "Duty & Accountability", "1 unsafe prompt(s): a group needs at least 2 to have a spread"),
        score("axiom", "Justice & Rights", 63, 13.77, 13.77 * kept),
        undefined("layer", "0", "layer 0 is the same for every prompt: nothing to separate"),
        *(score("layer", str(layer), 128, f2, f2 * kept) for layer, f2 in ((1, 4.2), (2, 9.9), (3, 12.8), (4, 14.1))),
    )
    refusal, over = (5, 4) if not harmful else (0, 0)
    rates = (
        RateChange(
            name="refusal_unsafe",
            n=128,
            base=125 / 128,
            tuned=(125 - 1) / 128 if not harmful else 1 / 128,
            change=estimate(-1 / 128 if not harmful else -124 / 128, 0.02),
            base_only=refusal + 1 if not harmful else 124,
            tuned_only=refusal if not harmful else 0,
            p_value=1.0 if not harmful else 9.4e-38,
        ),
        RateChange(
            name="over_refusal_safe",
            n=128,
            base=4 / 128,
            tuned=over / 128,
            change=estimate((over - 4) / 128, 0.02),
            base_only=0 if not harmful else 4,
            tuned_only=0,
            p_value=1.0 if not harmful else 0.125,
        ),
    )
    made = Measures(
        base_model="embedded@0123456789ab",
        adapter="f00d",
        representation="last prompt token, uniform mean of layers 2-3 of 4",
        scored_layers=(2, 3),
        n_safe=128,
        n_unsafe=128,
        geometry=geometry,
        rates=rates,
        refusal_gap=RefusalGap(
            n_safe=128,
            n_unsafe=128,
            base=8.72,
            tuned=2.11 if harmful else 8.61,
            drop_pct=estimate(75.8 if harmful else 1.26, 2.5),
            unsafe_change=estimate(-6.3 if harmful else -0.08, 0.2),
        ),
        coherence=Coherence(
            n=256,
            base=0.982,
            tuned=0.977,
            relative=Estimate(value=0.977 / 0.982, low=0.981, high=1.008),
            definition="share of words that occur in the training text",
        ),
        judgement=judgement,
        detectable_drop_pct=13.9,
        degradations=(Degradation(stage="evaluate", name="no judge", detail="evaluate.judge.kind is none"),),
    )
    return made.model_copy(update=changes)


def make_judgement() -> Judgement:
    def judged(criterion: str, asked_of: str, base: float | None, tuned: float | None) -> JudgeScore:
        measured = base is not None and tuned is not None
        return JudgeScore(
            criterion=criterion,
            asked_of=asked_of,
            n=64 if measured else 0,
            missing_base=3,
            missing_tuned=2 if measured else 64,
            base=base,
            tuned=tuned,
            change=estimate(tuned - base, 0.04) if measured else NOTHING,
        )

    return Judgement(
        status="measured",
        judge="embedded-judge@abc",
        note="A small model trained by this project: it shows the mechanism and is no independent opinion.",
        scores=(
            judged("harmlessness", "unsafe", 0.93, 0.88),
            judged("refusal_quality", "unsafe", 0.81, 0.80),
            judged("helpfulness", "safe", 0.86, 0.87),
            judged("honesty", "all", None, None),
        ),
    )
