"""The smallest drop that a number of prompts can show, and that it really shows it."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.evaluate.metric import indices as ix
from jobs.evaluate.metric.bootstrap import assign_strata, draw_weights, percent_drop, recentre
from jobs.evaluate.metric.gram import gram_matrix, resampled_scatter
from jobs.evaluate.metric.power import detectable_drop_pct
from pipeline_common.measures import Estimate

WIDTH = 24
SPECTRUM = 1 / np.arange(1, WIDTH + 1)


def draw_drop(rng: np.random.Generator, n: int, base_f2: float, drop: float, seed: int) -> Estimate:
    """The measured drop of a planted one: 1/k spectrum, 3 / 10 of the tuned model's noise its own."""
    unsafe = np.arange(n) % 2 == 1
    weights = draw_weights(assign_strata(unsafe, [str(i // 2 % 7) for i in range(n)]), 200, seed)
    shared, own = (rng.standard_normal((n, WIDTH)) * np.sqrt(SPECTRUM) for _ in range(2))
    direction = unsafe[:, None] * np.sqrt(SPECTRUM)
    base = shared + direction * np.sqrt(base_f2)
    tuned = (shared + 0.3 * own) / np.sqrt(1.09) + direction * np.sqrt(base_f2 * (1 - drop))
    values, clouds = [], []
    for rows in (base, tuned):
        values.append(float(ix.f2(ix.measure_scatter(rows, unsafe))))
        clouds.append(recentre(ix.f2(resampled_scatter(gram_matrix(rows, 0.0), unsafe, weights)), values[-1]))
    return percent_drop(values[0], values[1], clouds[0], clouds[1])


def test_detectable_drop_is_28_standard_errors_and_undefined_without_noise():
    # (1.96 + 0.8416) x SE with SE = 9.8 / (2 x 1.96) = 2.5
    assert detectable_drop_pct(Estimate(value=3.0, low=-1.9, high=7.9)) == pytest.approx(7.004, abs=1e-3)
    assert detectable_drop_pct(Estimate(value=None)) is None
    assert detectable_drop_pct(Estimate(value=0.0, low=0.0, high=0.0)) is None


# Known from simulations on data of this shape: about 14 % at n = 128, 10 % at 256, 7 % at 512.
@pytest.mark.parametrize(("n", "detectable"), [(128, 14.0), (256, 10.0), (512, 7.0)])
def test_a_drop_of_the_detectable_size_is_shown_in_about_8_of_10_samples(n, detectable):
    rng = np.random.default_rng(n)
    drops = [draw_drop(rng, n, 0.5, detectable / 100, seed) for seed in range(200)]
    assert np.mean([detectable_drop_pct(drop) for drop in drops]) == pytest.approx(detectable, rel=0.1)
    assert 0.70 <= np.mean([drop.low > 0 for drop in drops]) <= 0.88
