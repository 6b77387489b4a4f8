"""Planted activations: the planted value is there, and a short run of the long proof."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.evaluate.metric import indices as ix
from jobs.evaluate.metric.simulation import Plant, draw_pair, measure_coverage, sample_f2
from pipeline_common.errors import ConfigError


def test_a_large_draw_has_what_was_planted():
    plant = Plant(n=60_000, share_unsafe=0.3, base_f2=0.8, tuned_f2=0.2, width=16)
    pair = draw_pair(plant, np.random.default_rng(0))
    assert pair.unsafe.mean() == pytest.approx(0.3)
    for rows, planted in ((pair.base, 0.8), (pair.tuned, 0.2)):
        assert float(ix.f2(ix.measure_scatter(rows, pair.unsafe))) == pytest.approx(planted, rel=0.03)
        eigenvalues = np.linalg.eigvalsh(np.cov(rows[~pair.unsafe].T))[::-1]
        np.testing.assert_allclose(eigenvalues, 1 / np.arange(1, 17), rtol=0.05)
    safe = ~pair.unsafe
    shared = np.corrcoef(pair.base[safe, 0], pair.tuned[safe, 0])[0, 1]
    assert shared == pytest.approx(1 / np.sqrt(1.09), abs=0.01)


def test_label_noise_lowers_f2_as_derived():
    plant = Plant(n=60_000, share_unsafe=0.3, label_noise=0.1, width=16)
    pair = draw_pair(plant, np.random.default_rng(1))
    found = float(ix.f2(ix.measure_scatter(pair.base, pair.unsafe)))
    assert found == pytest.approx(plant.expected_f2(1.0), rel=0.03)
    # Balanced, by hand: a = .9, b = .1, so .8^2 / (1 + .09).
    assert Plant(label_noise=0.1).expected_f2(1.0) == pytest.approx(0.64 / 1.09)
    assert Plant().expected_f2(0.7) == pytest.approx(0.7)


@pytest.mark.parametrize("share_unsafe", [0.5, 0.3])
@pytest.mark.parametrize(("n", "runs"), [(64, 2000), (256, 500), (1024, 120), (4096, 40)])
def test_mean_f2_is_within_3_percent_of_the_truth_at_every_n(n, runs, share_unsafe):
    plant = Plant(n=n, share_unsafe=share_unsafe, width=24, base_f2=2.0)
    assert float(np.mean(sample_f2(plant, runs, seed=n))) == pytest.approx(2.0, rel=0.03)


def test_coverage_in_a_short_run():
    # 300 runs have a standard error of 1.3 points: this catches a wrong method, the long run measures a right one.
    found = measure_coverage(Plant(n=128, share_unsafe=0.3, width=24), runs=300, resamples=400, seed=1)
    assert 0.91 <= found.f2 <= 0.98
    assert 0.91 <= found.difference <= 0.98
    assert 0.91 <= found.drop_pct <= 0.98
    assert found.mean_f2 == pytest.approx(1.0, abs=0.04)
    assert found.mean_f2_error_pct == pytest.approx(100 * (found.mean_f2 - 1))


def test_alarms_on_a_large_drop_and_on_none():
    large = measure_coverage(Plant(n=128, tuned_f2=0.3, width=24), runs=40, resamples=200)
    none = measure_coverage(Plant(n=128, tuned_f2=1.0, width=24), runs=40, resamples=200)
    assert (large.alarm, none.alarm) == (1.0, 0.0)


def test_duplicated_prompts_spoil_the_coverage():
    # Why they are refused: half of the prompts repeated.
    found = measure_coverage(Plant(n=128, duplicates=0.5, width=24), runs=100, resamples=200)
    assert found.f2 < 0.9
    rows = draw_pair(Plant(n=128, duplicates=0.5, width=24), np.random.default_rng(0)).base
    assert len(np.unique(rows[:, 0])) == 64


def test_a_plant_that_cannot_be():
    with pytest.raises(ConfigError, match="1 of 10 prompts unsafe"):
        draw_pair(Plant(n=10, share_unsafe=0.1), np.random.default_rng(0))
