"""Intervals: the weights, what they cover, and the trap they avoid."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.evaluate.metric import indices as ix
from jobs.evaluate.metric.bootstrap import (
    assign_strata,
    canonical_order,
    draw_weights,
    interval,
    percent_drop,
    recentre,
)
from jobs.evaluate.metric.gram import gram_matrix, resampled_scatter
from pipeline_common.errors import InputError

N, WIDTH, AXIOMS, RESAMPLES = 128, 24, 7, 300
UNSAFE = np.arange(N) % 2 == 1
TOPIC = (np.arange(N) // 2) % AXIOMS
STRATA = assign_strata(UNSAFE, [str(t) for t in TOPIC])
SPECTRUM = 1 / np.arange(1, WIDTH + 1)


def draw_pair(rng: np.random.Generator, base_f2: float, tuned_f2: float) -> tuple[np.ndarray, np.ndarray]:
    """Base and tuned rows with planted f2, a 1/k spectrum, shared noise and a part of their own."""
    shared = rng.standard_normal((N, WIDTH)) * np.sqrt(SPECTRUM)
    own = 0.3 * rng.standard_normal((N, WIDTH)) * np.sqrt(SPECTRUM)
    direction = UNSAFE[:, None] * np.sqrt(SPECTRUM)
    tuned = (shared + own) / np.sqrt(1.09)  # the same covariance, so tuned_f2 is planted as exactly as base_f2
    return shared + direction * np.sqrt(base_f2), tuned + direction * np.sqrt(tuned_f2)


def test_recentred_paired_bootstrap_covers_f2_its_difference_and_its_drop():
    rng = np.random.default_rng(20)
    base_f2, tuned_f2, runs = 1.0, 0.85, 400
    covered = np.zeros(3)
    for run in range(runs):
        weights = draw_weights(STRATA, RESAMPLES, seed=run)
        values, clouds = [], []
        for rows in draw_pair(rng, base_f2, tuned_f2):
            value = float(ix.f2(ix.measure_scatter(rows, UNSAFE)))
            values.append(value)
            clouds.append(recentre(ix.f2(resampled_scatter(gram_matrix(rows, 0.0), UNSAFE, weights)), value))
        estimates = (
            interval(values[0], clouds[0]),
            interval(values[0] - values[1], clouds[0] - clouds[1]),
            percent_drop(values[0], values[1], clouds[0], clouds[1]),
        )
        for i, (estimate, truth) in enumerate(zip(estimates, (base_f2, base_f2 - tuned_f2, 15.0), strict=True)):
            covered[i] += estimate.low <= truth <= estimate.high
    assert np.all((covered / runs >= 0.90) & (covered / runs <= 0.97)), covered / runs


def test_the_plain_percentile_interval_would_miss():
    # Why the cloud is moved. White noise in 64 dimensions: the repeated rows of a resample inflate every CHI.
    rng = np.random.default_rng(3)
    unsafe = np.arange(64) % 2 == 1
    weights = draw_weights(unsafe.astype(np.intp), 300, seed=0)
    planted, runs = 0.3, 100
    plain_covers = recentred_covers = 0
    for _ in range(runs):
        rows = rng.standard_normal((64, 64)) + unsafe[:, None] * np.sqrt(planted)
        value = float(ix.f2(ix.measure_scatter(rows, unsafe)))
        cloud = ix.f2(resampled_scatter(gram_matrix(rows, 0.0), unsafe, weights))
        plain, recentred = interval(value, cloud), interval(value, recentre(cloud, value))
        plain_covers += plain.low <= planted <= plain.high
        recentred_covers += recentred.low <= planted <= recentred.high
    assert plain_covers < 0.75 * runs
    assert recentred_covers > 0.88 * runs


def test_resampled_scatter_equals_repeating_the_rows():
    # A weight of 2 is the row twice, 0 is the row left out: the same W and d2 as the formulas on such rows.
    rng = np.random.default_rng(5)
    rows, unsafe = rng.standard_normal((6, 4)), np.array([False, True, False, True, False, True])
    counts = np.array([[2, 0, 1, 3, 0, 0], [0, 1, 3, 1, 0, 1], [1, 1, 1, 1, 1, 1]])
    resampled = resampled_scatter(gram_matrix(rows, 0.0), unsafe, counts.astype(float)[1:])
    for b, count in enumerate(counts[1:]):
        repeated = ix.measure_scatter(np.repeat(rows, count, axis=0), np.repeat(unsafe, count))
        assert resampled.within[b] == pytest.approx(float(repeated.within))
        assert resampled.between_sq[b] == pytest.approx(float(repeated.between_sq))
    one_row_three_times = counts.astype(float)[:1] * np.array([1, 0, 0, 1, 1, 0]) + np.array([1.0, 0, 0, 0, 0, 0])
    with pytest.raises(ix.UndefinedScore, match="coincide"):
        resampled_scatter(gram_matrix(rows, 0.0), unsafe, np.vstack([counts[1:], one_row_three_times]))


def test_weights_keep_every_strata_size_and_give_the_sample_variance():
    weights = draw_weights(STRATA, 4000, seed=1)
    for stratum in np.unique(STRATA):
        rows = np.flatnonzero(stratum == STRATA)
        np.testing.assert_allclose(weights[:, rows].sum(axis=1), rows.size)
    # Variance of a stratum's mean over resamples = s^2 / m with the unbiased s^2 (Rao & Wu 1988).
    rows = np.flatnonzero(STRATA == 0)
    values = np.random.default_rng(2).standard_normal(rows.size)
    means = weights[:, rows] @ values / rows.size
    assert means.var() == pytest.approx(values.var(ddof=1) / rows.size, rel=0.1)


def test_small_strata_of_a_label_are_pooled_and_a_lone_row_keeps_its_weight():
    unsafe = np.array([False] * 12 + [True] * 9)
    axioms = ["big"] * 8 + ["a", "a", "b", "b"] + ["big"] * 8 + ["a"]
    strata = assign_strata(unsafe, axioms)
    assert len(set(strata[:8])) == 1
    assert len(set(strata[8:12])) == 1
    assert len({strata[0], strata[8], strata[12], strata[20]}) == 4
    assert np.all(draw_weights(strata, 50, seed=0)[:, 20] == 1.0)


def test_a_lone_row_stops_nothing_and_two_rows_are_resampled():
    # Stratum 0 is one row. Stratum 1 has two: one is drawn with weight 2 / 1, the other is left out.
    weights = draw_weights(np.array([0, 1, 1]), 50, seed=0)
    assert {tuple(row) for row in weights} == {(1.0, 2.0, 0.0), (1.0, 0.0, 2.0)}


def test_percent_drop_is_undefined_where_the_base_may_be_nothing():
    cloud = np.linspace(-0.1, 0.5, 100)
    assert percent_drop(0.2, 0.1, cloud, cloud / 2).value is None
    assert percent_drop(0.2, 0.1, np.array([0.0, 0.4]), np.array([0.1, 0.1])).value is None  # one resample is nothing
    assert percent_drop(0.0, 0.1, np.array([0.1, 0.2]), np.array([0.1, 0.1])).value is None
    assert percent_drop(-0.2, 0.1, np.full(9, 0.2), cloud[:9]).value is None
    drop = percent_drop(0.2, 0.1, np.linspace(0.1, 0.3, 101), np.linspace(0.05, 0.15, 101))
    assert (drop.value, drop.low, drop.high) == (pytest.approx(50), pytest.approx(50), pytest.approx(50))


def test_repeated_prompt_ids_are_refused_by_name():
    with pytest.raises(InputError, match="p2 occurs more than once"):
        canonical_order(["p1", "p2", "p3", "p2"])
