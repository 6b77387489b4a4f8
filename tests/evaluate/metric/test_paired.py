"""Base against tuned, prompt by prompt."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_rel

from jobs.evaluate.metric.indices import UndefinedScore
from jobs.evaluate.metric.paired import (
    MIN_FLAWED,
    mean_change,
    newcombe_paired,
    rate_change,
    refusal_gap,
    relative_share,
)
from pipeline_common.errors import InputError


def outcomes(both: int, base_only: int, tuned_only: int, neither: int) -> tuple[list[bool], list[bool]]:
    base = [True] * (both + base_only) + [False] * (tuned_only + neither)
    tuned = [True] * both + [False] * base_only + [True] * tuned_only + [False] * neither
    return base, tuned


def test_newcombe_reproduces_the_published_example():
    # Airway hyper-responsiveness before and after transplantation (Bentur et al. 2009), 1 / 1 / 7 / 12 of 21:
    # -0.507 to -0.026 by Newcombe's square-and-add method in Fagerland, Lydersen & Laake 2014.
    change = newcombe_paired(both=1, first_only=1, second_only=7, neither=12)
    assert (change.value, change.low, change.high) == (
        pytest.approx(-6 / 21),
        pytest.approx(-0.507, abs=5e-4),
        pytest.approx(-0.026, abs=5e-4),
    )


def test_newcombe_by_hand_where_the_pairs_agree():
    # 40 / 10 / 0 / 50 of 100: 50 % and 40 %. Wilson limits .403832 .596168 and .309401 .497997.
    # Covariance 40 x 50 - 10 x 0 = 2000, less n / 2 = 1950; phi = 1950 / sqrt(50 x 50 x 40 x 60) = .796084.
    # Below: .0961685^2 + .0979970^2 - 2 phi .0961685 x .0979970 = .0620228^2;
    # above: .0961685^2 + .0905994^2 - 2 phi .0961685 x .0905994 = .0598696^2.
    change = newcombe_paired(both=40, first_only=10, second_only=0, neither=50)
    assert change.value == pytest.approx(0.1)
    assert (change.low, change.high) == (pytest.approx(0.0379772, abs=2e-6), pytest.approx(0.1598696, abs=2e-6))


def test_newcombe_by_hand_where_the_pairs_disagree():
    # 10 / 40 / 30 / 20 of 100: covariance 10 x 20 - 40 x 30 = -1000, uncorrected; phi = -1000 / 2449.49 = -.408248.
    # The limits are those above, so both terms add: .0961685^2 + .0979970^2 + 2 x .408248 x .00942423 = .162932^2.
    change = newcombe_paired(both=10, first_only=40, second_only=30, neither=20)
    assert change.value == pytest.approx(0.1)
    assert change.low == pytest.approx(0.1 - 0.162932, abs=2e-6)


def test_rate_change_by_hand():
    change = rate_change("refusal_unsafe", *outcomes(both=80, base_only=12, tuned_only=2, neither=6))
    assert (change.n, change.base, change.tuned) == (100, 0.92, 0.82)
    assert (change.base_only, change.tuned_only) == (12, 2)
    assert change.change.value == pytest.approx(-0.10)
    assert change.change.low < -0.10 < change.change.high < 0
    # two-sided: 2 (C(14,0) + C(14,1) + C(14,2)) / 2^14 = 2 x 106 / 16384
    assert change.p_value == pytest.approx(212 / 16384)


def test_no_discordant_pair_is_p_1_and_keeps_a_width():
    change = rate_change("over_refusal_safe", *outcomes(both=60, base_only=0, tuned_only=0, neither=4))
    assert (change.change.value, change.p_value) == (0.0, 1.0)
    assert change.change.low < 0 < change.change.high
    never = rate_change("over_refusal_safe", [False] * 64, [False] * 64)
    assert -0.07 < never.change.low < 0 < never.change.high < 0.07


def test_newcombe_covers():
    rng = np.random.default_rng(4)
    covered = 0
    for a, b, c, d in rng.multinomial(128, [0.80, 0.15, 0.03, 0.02], size=400):
        change = newcombe_paired(int(a), int(b), int(c), int(d))
        covered += change.low <= 0.12 <= change.high
    assert 0.92 <= covered / 400 <= 0.985


def test_mean_change_is_the_paired_t_interval():
    rng = np.random.default_rng(0)
    base = rng.random(30)
    tuned = base + rng.normal(0.1, 0.2, 30)
    expected = ttest_rel(tuned, base).confidence_interval(0.95)
    change = mean_change(base, tuned)
    assert (change.low, change.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    order = rng.permutation(30)
    assert mean_change(base[order], tuned[order]) == change
    assert mean_change([], []).value is None
    assert mean_change([0.25], [0.75]).model_dump() == {"value": 0.5, "low": None, "high": None}
    assert mean_change([0.5, 0.7], [0.5, 0.7]).model_dump() == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_refusal_gap_by_hand_and_whatever_the_order():
    rng = np.random.default_rng(1)
    unsafe = np.arange(200) % 2 == 0
    base = np.where(unsafe, 4.0, -4.0) + rng.standard_normal(200)
    tuned = np.where(unsafe, 1.0, -3.0) + rng.standard_normal(200) * 0.5
    gap = refusal_gap(base, tuned, unsafe)
    assert gap.base == pytest.approx(base[unsafe].mean() - base[~unsafe].mean())
    assert gap.drop_pct.value == pytest.approx(100 * (1 - gap.tuned / gap.base))
    assert 40 < gap.drop_pct.low < gap.drop_pct.value < gap.drop_pct.high < 60  # truth 100 (8 - 4) / 8 = 50
    assert gap.unsafe_change.value == pytest.approx((tuned - base)[unsafe].mean())
    order = rng.permutation(200)
    assert refusal_gap(base[order], tuned[order], unsafe[order]) == gap


def test_an_unchanged_gap_drops_by_exactly_0():
    unsafe = np.arange(100) % 2 == 0
    base = np.where(unsafe, 3.0, -3.0) + np.random.default_rng(2).standard_normal(100)
    gap = refusal_gap(base, base, unsafe)
    assert gap.drop_pct.model_dump() == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert gap.unsafe_change.model_dump() == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_a_base_that_does_not_refuse_has_no_drop_in_percent():
    unsafe = np.arange(100) % 2 == 0
    base = np.random.default_rng(2).standard_normal(100)
    assert refusal_gap(base, base - 1, unsafe).drop_pct.value is None
    assert refusal_gap(np.where(unsafe, -3.0, 3.0), base, unsafe).drop_pct.value is None


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="prompt 1"):
        refusal_gap([1.0, np.inf, 2.0, 3.0], [1.0] * 4, [True, True, False, False])
    with pytest.raises(InputError, match="expected one per prompt"):
        mean_change([1.0, 2.0], [1.0])
    with pytest.raises(InputError, match="at least 1"):
        rate_change("refusal_unsafe", [], [])
    with pytest.raises(InputError, match="expected one per prompt"):
        mean_change([[1.0]], [[1.0]])
    with pytest.raises(InputError, match="scores: NaN or infinity at prompt 1"):
        mean_change([1.0, np.nan], [1.0, 1.0])
    with pytest.raises(InputError, match=r"refusal log-odds: \(4,\) values against \(1,\)"):
        refusal_gap([1.0] * 4, [1.0], [True, True, False, False])
    with pytest.raises(InputError, match=r"log-odds and labels: \(4,\) values against \(3,\)"):
        refusal_gap([1.0] * 4, [1.0] * 4, [True, False, False])
    with pytest.raises(InputError, match=r"prompt 2 \(1 of 4 prompts\)"):
        refusal_gap([1.0] * 4, [1.0, 1.0, np.nan, 1.0], [True, True, False, False])
    with pytest.raises(UndefinedScore, match="1 unsafe"):
        refusal_gap([1.0, 2.0, 3.0], [1.0] * 3, [True, False, False])


def counted(rng: np.random.Generator, n: int, flawed: float) -> np.ndarray:
    """(good, all) words of n answers; a fifth of the words of some answers is bad."""
    words = rng.integers(12, 25, n)
    return np.stack([words - np.where(rng.random(n) < flawed, rng.binomial(words, 0.2), 0), words], axis=1)


def test_a_relative_share_and_its_interval_against_the_delta_method():
    rng = np.random.default_rng(3)
    base, tuned, unsafe = counted(rng, 512, 0.3), counted(rng, 512, 0.6), np.arange(512) % 2 == 0
    found = relative_share(base, tuned, unsafe, resamples=4000)
    share, other = (counts[:, 0].sum() / counts[:, 1].sum() for counts in (base, tuned))
    assert found.value == pytest.approx(other / share)
    # Linearised: log(tuned / base) moves by what each prompt adds to either share's residual.
    residuals = (tuned[:, 0] - other * tuned[:, 1]) / tuned[:, 0].sum() - (base[:, 0] - share * base[:, 1]) / base[
        :, 0
    ].sum()
    spread = sum(residuals[side].var(ddof=1) * side.sum() for side in (unsafe, ~unsafe)) ** 0.5
    assert (found.low, found.high) == (
        pytest.approx(found.value * (1 - 1.96 * spread), abs=0.2 * spread),
        pytest.approx(found.value * (1 + 1.96 * spread), abs=0.2 * spread),
    )
    turned = np.argsort(rng.random(512))
    assert relative_share(base[turned], tuned[turned], unsafe[turned], resamples=4000) == found


def test_a_relative_share_of_what_is_alike_has_no_width_and_of_nearly_whole_answers_no_interval():
    rng = np.random.default_rng(4)
    base, unsafe = counted(rng, 128, 0.5), np.arange(128) % 2 == 0
    same = relative_share(base, base, unsafe)
    assert (same.value, same.low, same.high) == (1.0, 1.0, 1.0)
    few = np.full((128, 2), 20)
    few[: MIN_FLAWED - 1, 0] = 10
    assert relative_share(few, few, unsafe).low is None
    few[:MIN_FLAWED, 0] = 10
    assert relative_share(few, few, unsafe).low == 1.0


@pytest.mark.parametrize(
    ("base", "tuned"), [([], []), ([(0, 0)], [(1, 1)]), ([(0, 5)], [(1, 1)]), ([(1, 1)], [(0, 0)])]
)
def test_a_relative_share_of_nothing_is_undefined(base, tuned):
    assert relative_share(base, tuned, [True] * len(base)).value is None


def test_relative_shares_are_paired():
    with pytest.raises(InputError, match="one per prompt from both models"):
        relative_share([(1, 1)], [(1, 1), (1, 1)], [True])
