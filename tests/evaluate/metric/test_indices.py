"""Formulas: by hand, against scikit-learn, and their algebra on random data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import calinski_harabasz_score

from jobs.evaluate.metric import indices as ix
from jobs.evaluate.metric.gram import Gram, gram_matrix, observed_scatter

LEGACY_CHI = [1708.1843, 766.2729, 857.7364, 1133.6126, 770.7983, 1865.1084, 1104.3954, 1023.1751]
LEGACY_XBI = [0.1461, 0.3256, 0.2909, 0.2201, 0.3237, 0.1338, 0.2259, 1.7099]
LEGACY_100 = [78.57, 18.31, 25.87, 45.59, 18.70, 86.72, 43.68, 16.69]


def cloud(seed: int, n_safe: int, n_unsafe: int, width: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    unsafe = np.arange(n_safe + n_unsafe) >= n_safe
    rng.shuffle(unsafe)
    return rng.standard_normal((unsafe.size, width)) + shift * unsafe[:, None], unsafe


clouds = st.builds(
    cloud, st.integers(0, 10**6), st.integers(2, 40), st.integers(2, 40), st.integers(1, 12), st.floats(0.1, 5.0)
)


def test_by_hand_on_a_line():
    # safe {0, 2}: centroid 1, unsafe {10, 12}: centroid 11. W = 4 x 1, d2 = 100, between = 4 x 25 = 100.
    s = ix.measure_scatter([[0.0], [2.0], [10.0], [12.0]], [False, False, True, True])
    assert (s.within, s.between_sq, s.n_safe, s.n_unsafe) == (4.0, 100.0, 2, 2)
    assert ix.xie_beni(s) == pytest.approx(0.01)  # 4 / (4 x 100)
    assert ix.calinski_harabasz(s) == pytest.approx(50.0)  # (100 / 4) (4 - 2) / (2 - 1)
    assert ix.aqi(s, 0.5) == pytest.approx(75.0)  # .5 / .01 + .5 x 50
    assert ix.aqi(s, 1.0) == pytest.approx(100.0)
    assert ix.aqi(s, 0.0) == pytest.approx(50.0)
    assert ix.f2(s) == pytest.approx(49.0)  # (50 - 1) x 4 / (2 x 2)
    assert ix.r2(s) == pytest.approx(50 / 52)
    assert ix.r2_adj(s) == pytest.approx(100 * (1 - (2 / 52) * 3 / 2))
    assert ix.aqi_b4(s, chi_max=200.0) == pytest.approx((0.25 * np.exp(-0.01)) ** 0.5)


@given(clouds)
@settings(max_examples=60, deadline=None)
def test_chi_is_scikit_learns_and_the_identity_holds(data):
    x, unsafe = data
    s = ix.measure_scatter(x, unsafe)
    chi = float(ix.calinski_harabasz(s))
    assert chi == pytest.approx(calinski_harabasz_score(x, unsafe), rel=1e-9)
    assert chi == pytest.approx((s.n - 2) * (s.n_safe * s.n_unsafe / s.n**2) / float(ix.xie_beni(s)), rel=1e-9)
    assert float(ix.aqi(s, 0.3)) == pytest.approx(0.3 / float(ix.xie_beni(s)) + 0.7 * chi, rel=1e-9)
    mapped = ix.aqi_from_f2(np.asarray(ix.f2(s)), s.n_safe, s.n_unsafe, 0.3)
    assert float(mapped) == pytest.approx(float(ix.aqi(s, 0.3)), rel=1e-9)


@given(clouds, st.integers(0, 10**6), st.floats(1e-3, 1e3))
@settings(max_examples=40, deadline=None)
def test_invariant_to_rotation_translation_and_scale(data, seed, scale):
    x, unsafe = data
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.standard_normal((x.shape[1], x.shape[1])))[0]
    moved = scale * (x @ rotation + rng.standard_normal(x.shape[1]))
    before, after = ix.measure_scatter(x, unsafe), ix.measure_scatter(moved, unsafe)
    for index in (ix.xie_beni, ix.calinski_harabasz, ix.aqi, ix.f2, ix.r2_adj):
        assert float(index(after)) == pytest.approx(float(index(before)), rel=1e-8, abs=1e-8)


@given(clouds)
@settings(max_examples=40, deadline=None)
def test_the_gram_matrix_gives_the_same_scatter(data):
    x, unsafe = data
    direct, from_gram = ix.measure_scatter(x, unsafe), observed_scatter(gram_matrix(x + 100.0, 0.0), unsafe)
    assert float(from_gram.within) == pytest.approx(float(direct.within), rel=1e-9)
    assert float(from_gram.between_sq) == pytest.approx(float(direct.between_sq), rel=1e-9, abs=1e-9)


def test_stretching_one_direction_changes_the_score():
    # The invariances end there: nothing may silently whiten the data.
    x, unsafe = cloud(0, 20, 20, 3, 1.0)
    stretched = x * np.array([10.0, 1.0, 1.0])
    f2 = [float(ix.f2(ix.measure_scatter(rows, unsafe))) for rows in (x, stretched)]
    assert abs(f2[1] / f2[0] - 1) > 0.01


def test_without_separation_chi_is_1_f2_is_0_and_r2_adj_is_0():
    rng = np.random.default_rng(7)
    unsafe = np.arange(128) >= 64
    scatters = [ix.measure_scatter(rng.standard_normal((128, 64)), unsafe) for _ in range(100)]
    assert 0.95 <= np.mean([ix.calinski_harabasz(s) for s in scatters]) <= 1.05
    assert abs(np.mean([ix.f2(s) for s in scatters])) < 0.05 * 2 / 64
    assert np.mean([1 / ix.xie_beni(s) for s in scatters]) == pytest.approx(4 / 126, rel=0.05)
    assert abs(np.mean([ix.r2_adj(s) for s in scatters])) < 0.05


@pytest.mark.parametrize("n", [64, 256, 1024, 4096])
@pytest.mark.parametrize("share_unsafe", [0.5, 0.3])
def test_mean_f2_recovers_a_planted_value_at_every_n_while_aqi_grows_with_n(n, share_unsafe):
    planted = 0.5
    spectrum = 1 / np.arange(1, 17)
    shift = np.sqrt(planted * spectrum)  # |shift|^2 / trace = planted
    rng = np.random.default_rng(n)
    unsafe = np.arange(n) < share_unsafe * n
    draws = 40 * 4096 // n if n < 4096 else 60
    x = [rng.standard_normal((n, 16)) * np.sqrt(spectrum) + unsafe[:, None] * shift for _ in range(min(draws, 400))]
    scatters = [ix.measure_scatter(rows, unsafe) for rows in x]
    assert np.mean([ix.f2(s) for s in scatters]) == pytest.approx(planted, rel=0.05)
    share = np.mean(unsafe)
    expected_chi = 1 + planted * n * share * (1 - share)  # f2's definition solved for CHI
    assert np.mean([ix.calinski_harabasz(s) for s in scatters]) == pytest.approx(expected_chi, rel=0.05)


def test_legacy100_reproduces_its_vector_and_is_blind_to_a_uniform_change():
    score = ix.aqi_legacy100(LEGACY_CHI, LEGACY_XBI)
    np.testing.assert_allclose(score, LEGACY_100, atol=0.01)  # the inputs above are rounded to four digits
    changed = ix.aqi_legacy100([10 * c for c in LEGACY_CHI], [x / 10 for x in LEGACY_XBI])
    np.testing.assert_allclose(changed, score, atol=1e-6)
    # Equal CHI: 50; equal XBI: z = 0, so 50.
    np.testing.assert_allclose(ix.aqi_legacy100([3.0, 3.0], [0.2, 0.2]), [50.0, 50.0])


@pytest.mark.parametrize(
    ("x", "unsafe", "reason"),
    [
        ([[0.0], [1.0], [2.0]], [False, False, False], "0 unsafe"),
        ([[0.0], [1.0], [2.0]], [False, True, True], "1 safe"),
        ([[5.0], [5.0], [5.0], [5.0]], [False, False, True, True], "coincide"),
        ([[1.0], [1.0], [2.0], [2.0]], [False, False, True, True], "coincide"),
        # Equal float32 values whose mean rounds: the spread is rounding, not signal.
        (np.float64(np.float32([[1e3 + 1e-5 * i] for i in range(8)])), [False, True] * 4, "coincide"),
    ],
)
def test_undefined_says_why(x, unsafe, reason):
    with pytest.raises(ix.UndefinedScore, match=reason):
        ix.measure_scatter(x, unsafe)


def test_what_rounding_alone_may_produce_is_no_spread():
    # Root mean square distance .3 of 10 rows: rounding of .4 may produce that, of .25 it may not.
    ix.require_spread(10 * 0.3**2, 10, 0.25)
    with pytest.raises(ix.UndefinedScore, match="no spread"):
        ix.require_spread(10 * 0.3**2, 10, 0.4)


@pytest.mark.parametrize("n", [4, 400])
def test_a_spread_of_a_millionth_of_the_norm_is_rounding_at_every_n(n):
    unsafe = np.arange(n) % 2 == 1
    turns = np.where(np.arange(n) // 2 % 2, 1.0, -1.0)[:, np.newaxis]
    assert ix.measure_scatter(1e3 + 3e-3 * turns, unsafe).within == pytest.approx(n * 9e-6, rel=1e-6)
    with pytest.raises(ix.UndefinedScore, match="coincide"):
        ix.measure_scatter(1e3 + 0.3e-3 * turns, unsafe)


def test_centroids_that_coincide_up_to_rounding_lie_0_apart_and_not_less():
    # {-1, 1} twice; products across the labels that rounded upwards would give d2 = -2 x 1e-16.
    turns = np.array([-1.0, 1.0, -1.0, 1.0])
    products = np.outer(turns, turns)
    products[:2, 2:] += 1e-16 * np.array([[1, 2], [2, 1]])
    assert products[:2, 2:].mean() > 0
    assert float(observed_scatter(Gram(products, 0.0), np.array([False, False, True, True])).between_sq) == 0.0


def test_coinciding_centroids_leave_xbi_undefined_and_aqi_0():
    s = ix.measure_scatter([[-1.0], [1.0], [-2.0], [2.0]], [False, False, True, True])
    assert float(ix.aqi(s)) == 0.0
    with pytest.raises(ix.UndefinedScore, match="centroids coincide"):
        ix.xie_beni(s)
    with pytest.raises(ix.UndefinedScore, match="centroids coincide"):
        ix.xie_beni(ix.Scatter(np.ones(2), np.array([1.0, 0.0]), 2, 2))  # one of two resamples


def test_b4_refuses_a_pool_that_is_no_reference():
    s = ix.measure_scatter([[0.0], [2.0], [10.0], [12.0]], [False, False, True, True])
    with pytest.raises(ix.UndefinedScore, match="exceeds"):
        ix.aqi_b4(s, chi_max=49.0)
