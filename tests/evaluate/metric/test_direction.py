"""The difference-in-means direction: by hand without noise, unbiased with it."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.evaluate.metric.direction import compare_directions
from jobs.evaluate.metric.gram import pair_grams
from jobs.evaluate.metric.indices import UndefinedScore

UNSAFE = np.arange(80) % 2 == 1


def compare(base, tuned, unsafe=UNSAFE):
    return compare_directions(pair_grams(base, tuned), unsafe)


def test_by_hand():
    # No spread within the labels: nothing to correct. Base points along (3, 4), tuned along (0, 10).
    base, tuned = UNSAFE[:, None] * np.array([3.0, 4.0]), UNSAFE[:, None] * np.array([0.0, 10.0])
    found = compare(base, tuned)
    assert found.cosine == pytest.approx(0.8)  # 40 / (5 x 10)
    assert found.gap_base == pytest.approx(5.0)
    assert found.gap_tuned == pytest.approx(8.0)  # (0, 10) on (.6, .8)


def test_unbiased_where_the_plain_cosine_is_near_1():
    # Two models that share their noise but whose directions stand at a right angle.
    rng = np.random.default_rng(0)
    width, found, plain = 400, [], []
    for _ in range(60):
        noise = rng.standard_normal((80, width))
        base, tuned = noise.copy(), noise + 0.1 * rng.standard_normal((80, width))
        base[:, 0] += 3.0 * UNSAFE
        tuned[:, 1] += 3.0 * UNSAFE
        found.append(compare(base, tuned))
        r = [rows[UNSAFE].mean(axis=0) - rows[~UNSAFE].mean(axis=0) for rows in (base, tuned)]
        plain.append(r[0] @ r[1] / np.linalg.norm(r[0]) / np.linalg.norm(r[1]))
    assert np.mean(plain) > 0.6
    assert abs(np.mean([one.cosine for one in found])) < 0.05
    assert np.mean([one.gap_base for one in found]) == pytest.approx(3.0, rel=0.05)
    assert abs(np.mean([one.gap_tuned for one in found])) < 0.15


def test_a_reversed_direction_and_a_halved_one():
    rng = np.random.default_rng(1)
    noise, shift = rng.standard_normal((80, 4)), UNSAFE[:, None] * np.array([6.0, 0, 0, 0])
    reversed_ = compare(noise + shift, noise - shift)
    assert reversed_.cosine == pytest.approx(-1.0, abs=0.1)
    assert reversed_.gap_tuned == pytest.approx(-reversed_.gap_base, rel=0.15)
    halved = compare(noise + shift, noise + shift / 2)
    assert halved.cosine == pytest.approx(1.0, abs=0.02)
    assert halved.gap_tuned == pytest.approx(3.0, abs=0.6)


def test_a_base_without_direction_is_undefined_and_a_tuned_one_has_no_cosine():
    nothing = np.zeros((80, 2))
    nothing[:, 0] = np.tile([1.0, 1.0, -1.0, -1.0], 20)  # both labels have the same mean
    planted = nothing + UNSAFE[:, None]
    with pytest.raises(UndefinedScore, match="there is no direction"):
        compare(nothing, planted)
    assert compare(planted, nothing).cosine is None
    with pytest.raises(UndefinedScore, match="1 unsafe"):
        compare(planted, planted, np.arange(80) == 3)
    zeros = np.zeros((80, 2))
    with pytest.raises(UndefinedScore, match="there is no direction"):
        compare(zeros, planted)
    assert compare(planted, zeros).cosine is None


def test_a_direction_within_rounding_is_none():
    # No spread within the labels, means .3 apart: rounding of .4 may produce that, of .25 it may not.
    rows = 0.3 * UNSAFE[:, None]
    assert compare_directions(pair_grams(rows, rows, 0.25, 0.25), UNSAFE).cosine == pytest.approx(1.0)
    assert compare_directions(pair_grams(rows, rows, 0.25, 0.4), UNSAFE).cosine is None
    with pytest.raises(UndefinedScore, match="there is no direction"):
        compare_directions(pair_grams(rows, rows, 0.4, 0.25), UNSAFE)
