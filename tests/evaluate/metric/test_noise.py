"""Activations in which nothing is: ours say so, where a direction fitted on the same rows shows many sigmas."""

from __future__ import annotations

import numpy as np
import pytest

from tests.benchmarks.scanners import (
    PASS_SIGMA,
    ask_our_probe,
    ask_ours,
    ask_theirs,
    draw_noise,
    sigma_separation,
)

DRAWS = 200


def test_sigma_separation_by_hand():
    # Direction (1, 0); projections 0, 2 and 10, 14: means 1 and 12, variances 1 and 4, 11 / sqrt(2.5).
    rows = np.array([[0.0, 1.0], [2.0, -1.0], [10.0, -3.0], [14.0, 3.0]])
    assert sigma_separation(rows, np.array([False, False, True, True])) == pytest.approx(11 / np.sqrt(2.5))


def test_wide_noise_has_many_sigmas_and_no_separation():
    found = []
    for seed in range(DRAWS):
        noise = draw_noise(64, 4096, 0.0, seed)
        ours = ask_ours(noise, seed)
        found.append((sigma_separation(*noise), ours.holds_zero, ours.p))
    sigma, holds_zero, p = (np.array(column) for column in zip(*found, strict=True))
    # sqrt(2 D / m) of m prompts a label: the distance of two means of pure noise.
    assert sigma.min() > PASS_SIGMA
    assert sigma.mean() == pytest.approx(np.sqrt(2 * 4096 / 64), rel=0.05)
    assert holds_zero.mean() >= 0.95
    # A level of 5 % has a standard error of 1.5 points in 200 draws.
    assert np.mean(p <= 0.05) <= 0.1
    assert p.mean() == pytest.approx(0.5, abs=0.07)
    assert 0.35 <= np.mean(p <= 0.5) <= 0.65


def test_probes_on_noise():
    found = [draw_noise(32, 1024, 0.0, seed) for seed in range(30)]
    theirs = [ask_theirs(noise, 0) for noise in found]
    assert {answer.fitted_accuracy for answer in theirs} == {1.0}
    assert np.mean([answer.held_out_accuracy for answer in theirs]) == pytest.approx(0.5, abs=0.06)
    assert np.mean([answer.silhouette for answer in theirs]) == pytest.approx(0.0, abs=0.01)
    assert np.mean([answer.chi for answer in theirs]) == pytest.approx(1.0, abs=0.05)
    assert np.mean([ask_our_probe(noise, 0) for noise in found]) == pytest.approx(0.5, abs=0.06)
