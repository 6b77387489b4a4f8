from __future__ import annotations

import numpy as np
import pytest

from jobs.evaluate.controls.relabelling import centre_rows, count_flips, flip_labels, relabelled_f2, shuffle_labels
from jobs.evaluate.metric import indices
from jobs.evaluate.metric.indices import UndefinedScore, measure_scatter

UNSAFE = np.arange(100) >= 70


def test_f2_by_hand():
    """Safe {0, 2}, unsafe {10, 12} on a line: CHI = 50, f2 = (50 - 1) 4 / 4 = 49.

    {0, 12} against {2, 10}: both centroids are 6, CHI = 0, f2 = -1. {0, 10} against {2, 12}: centroids 5 and 7,
    W = 50 + 50 = 100, between = 4, CHI = 4 / 100 x 2 = .08, f2 = -.92.
    """
    rows = centre_rows(np.array([[0.0], [2.0], [10.0], [12.0]]))
    labels = np.array([[0, 0, 1, 1], [0, 1, 1, 0], [0, 1, 0, 1]], dtype=np.bool_)
    assert relabelled_f2(rows, 0.0, labels) == pytest.approx([49.0, -1.0, -0.92])


@pytest.mark.parametrize("width", [7, 300])
def test_f2_equals_that_of_the_rows(width):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(100, width)) + UNSAFE[:, np.newaxis]
    labels = np.vstack([UNSAFE, shuffle_labels(UNSAFE, 20, seed=0)])
    expected = [float(indices.f2(measure_scatter(x, row))) for row in labels]
    assert relabelled_f2(centre_rows(x), 0.0, labels) == pytest.approx(expected, rel=1e-9)


def test_shuffles_keep_the_counts_and_move_the_labels():
    labels = shuffle_labels(UNSAFE, 50, seed=0)
    assert (labels.sum(axis=1) == 30).all()
    assert len(np.unique(labels, axis=0)) == 50
    assert (labels == shuffle_labels(UNSAFE, 50, seed=0)).all()
    assert (labels != shuffle_labels(UNSAFE, 50, seed=1)).any()


@pytest.mark.parametrize(("share", "flips"), [(0.01, (1, 1)), (0.05, (4, 2)), (0.1, (7, 3))])
def test_exactly_the_share_is_turned(share, flips):
    # 1, 5, 10 % of 70 and 30: .7 and .3 (at least one), 3.5 and 1.5 (to even: 4 and 2), 7 and 3.
    assert count_flips(UNSAFE, share) == flips
    labels = flip_labels(UNSAFE, share, 40, seed=0)
    assert {(int(row[~UNSAFE].sum()), int((~row[UNSAFE]).sum())) for row in labels} == {flips}
    assert len(np.unique(labels, axis=0)) > 20


@pytest.mark.parametrize("share", [0.05, 0.1])
def test_label_noise_follows_its_formula(share):
    """Turning a share p of both labels leaves (1 - 2 p)^2 d2 between and adds p (1 - p) d2 to the variance within.

    So f2 becomes (1 - 2 p)^2 f2 / (1 + p (1 - p) f2).
    """
    rng = np.random.default_rng(2)
    unsafe = np.arange(2000) % 2 == 1
    x = rng.normal(size=(2000, 8))
    x[:, 0] += 8 * unsafe
    clean = float(indices.f2(measure_scatter(x, unsafe)))  # about 64 / 8 = 8
    found = relabelled_f2(centre_rows(x), 0.0, flip_labels(unsafe, share, 20, seed=0)).mean()
    assert found == pytest.approx((1 - 2 * share) ** 2 * clean / (1 + share * (1 - share) * clean), rel=0.02)


def test_shuffled_labels_separate_nothing_on_average():
    x = np.random.default_rng(3).normal(size=(100, 5)) + 10.0 * UNSAFE[:, np.newaxis]
    found = relabelled_f2(centre_rows(x), 0.0, shuffle_labels(UNSAFE, 2000, seed=0))
    # CHI of shuffled labels is a permutation F: mean about 1, so f2 about 0; n / (n_safe n_unsafe) = .048 is its unit.
    assert found.mean() == pytest.approx(0.0, abs=0.01)


def test_rows_without_spread_are_undefined():
    with pytest.raises(UndefinedScore, match="no spread"):
        relabelled_f2(centre_rows(np.ones((100, 3))), 1e-6, UNSAFE[np.newaxis])
