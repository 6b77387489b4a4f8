"""Other forms of AQI: values by hand, what their references are made of, what stays undefined."""

from __future__ import annotations

import math

import pytest

from jobs.evaluate.metric.extra_indices import measure_extra_indices
from pipeline_common.measures import Estimate, GeometryScore, Indices

NOTHING = Estimate(value=None)
CHI = [1708.1843, 766.2729, 857.7364, 1133.6126, 770.7983, 1865.1084, 1104.3954, 1023.1751]
XBI = [0.1461, 0.3256, 0.2909, 0.2201, 0.3237, 0.1338, 0.2259, 1.7099]
LEGACY = [78.57, 18.31, 25.87, 45.59, 18.70, 86.72, 43.68, 16.69]


def indices(xbi: float | None, chi: float | None) -> Indices:
    return Indices(xbi=xbi, chi=chi, aqi=NOTHING, f2=NOTHING, r2_adj=None)


def key(name: str, base: tuple, tuned: tuple, scope: str = "axiom", reason: str | None = None) -> GeometryScore:
    return GeometryScore(
        scope=scope,
        name=name,
        n_safe=2,
        n_unsafe=2,
        status="undefined" if reason else "ok",
        reason=reason,
        base=indices(*base),
        tuned=indices(*tuned),
        delta_aqi=NOTHING,
        drop_pct=NOTHING,
        f2_drop_pct=NOTHING,
    )


# {0, 2} and {10, 12} on a line: XBI = .01, CHI = 50. With 2 + 2 points CHI = (n - 2) / 4 / XBI = .5 / XBI.
KEYS = [
    key("pooled", (0.01, 50.0), (0.02, 25.0), "overall"),
    key("mean of axioms", (0.001, 500.0), (0.001, 500.0), "overall_stratified"),
    key("one", (0.05, 10.0), (0.04, 12.5)),
    key("none", (None, None), (None, None), reason="0 safe prompt(s), expected at least 8"),
    key("touching", (None, 0.0), (0.5, 1.0)),
    key("3", (0.0001, 5000.0), (0.0001, 5000.0), "layer"),
]


def measure(names, keys=KEYS, lam=0.5):
    return measure_extra_indices(keys, names, lam)


def test_b4_by_hand_under_one_reference_for_both_models():
    (found,) = measure(["b4"], lam=0.25)
    (reference,) = found.references
    # Not the mean of axioms, not the layers.
    assert (reference.covers, reference.n_scores, reference.chi_max) == ("base and tuned", 4, pytest.approx(50.0))
    assert "largest CHI of this run, over both models" in found.source
    pooled, one, *rest = found.scores
    assert [score.scope for score in found.scores] == ["overall", "axiom", "axiom", "axiom"]
    assert pooled.base == pytest.approx(math.exp(-0.01 * 0.75))
    assert pooled.tuned == pytest.approx(0.5**0.25 * math.exp(-0.02 * 0.75))
    assert one.base == pytest.approx(0.2**0.25 * math.exp(-0.05 * 0.75))
    assert one.tuned == pytest.approx(0.25**0.25 * math.exp(-0.04 * 0.75))
    assert [(score.name, score.base, score.tuned) for score in rest] == [("none", None, None), ("touching", None, None)]
    assert [score.reason for score in found.scores] == [
        None,
        None,
        "0 safe prompt(s), expected at least 8",
        "the two centroids coincide: Xie-Beni divides by their distance",
    ]


def test_legacy100_reproduces_its_vector_for_each_model_by_its_own_extremes():
    """The tuned model's separation is a tenth of the base's everywhere: every score stays, which is the caveat."""
    names = [f"axiom {number}" for number in range(7)] + ["pooled"]
    keys = [
        key(name, (xbi, chi), (10 * xbi, chi / 10), "overall" if name == "pooled" else "axiom")
        for name, chi, xbi in zip(names, CHI, XBI, strict=True)
    ]
    (found,) = measure(["legacy100"], keys)
    assert [score.base for score in found.scores] == pytest.approx(LEGACY, abs=0.006)
    assert [score.tuned for score in found.scores] == pytest.approx(LEGACY, abs=0.006)
    base, tuned = found.references
    assert (base.covers, base.n_scores, base.chi_min, base.chi_max) == ("base", 8, min(CHI), max(CHI))
    assert (tuned.covers, tuned.chi_max) == ("tuned", pytest.approx(max(CHI) / 10))
    # Sorted: .1338 .1461 .2201 .2259 .2909 .3237 .3256 1.7099; quartiles at places 1.75 and 5.25.
    assert base.xbi_median == pytest.approx((0.2259 + 0.2909) / 2)
    assert base.xbi_iqr == pytest.approx((0.3237 + 0.25 * 0.0019) - (0.1461 + 0.75 * 0.0740))


def test_an_undefined_axiom_is_in_no_reference():
    (found,) = measure(["legacy100"])
    assert [reference.n_scores for reference in found.references] == [2, 2]
    assert found.references[0].chi_min == 10.0
    assert [score.base is None for score in found.scores] == [False, False, True, True]


def test_a_single_score_is_relative_to_nothing():
    legacy = measure(["legacy100"], KEYS[:1])[0]
    assert (legacy.references, legacy.scores[0].base) == ((), None)
    assert legacy.scores[0].reason == "no other scope has a score to compare with"
    assert measure(["b4"], KEYS[:1])[0].scores[0].base is not None


def test_without_any_score_everything_is_undefined():
    for found in measure(["b4", "legacy100"], KEYS[3:4]):
        assert (found.references, [score.base for score in found.scores]) == ((), [None])


def test_only_what_was_asked_for_in_a_fixed_order():
    assert measure([]) == ()
    assert [index.name for index in measure(["legacy100", "b4"])] == ["b4", "legacy100"]
