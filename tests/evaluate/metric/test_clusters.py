"""Against scikit-learn, and by hand where it has no counterpart."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import davies_bouldin_score, pairwise_distances, silhouette_score

from jobs.evaluate.metric import clusters
from jobs.evaluate.metric.gram import Gram, gram_matrix
from jobs.evaluate.metric.indices import UndefinedScore


@pytest.mark.parametrize("seed", range(5))
def test_equal_to_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    unsafe = rng.random(40) < 0.4
    rows = rng.standard_normal((40, 1 + 3 * seed)) + unsafe[:, None]
    gram = gram_matrix(rows + 50.0, 0.0)
    distances = clusters.distance_matrix(gram)
    np.testing.assert_allclose(distances, pairwise_distances(rows), atol=1e-6)
    assert clusters.silhouette(distances, unsafe) == pytest.approx(silhouette_score(rows, unsafe), abs=1e-9)
    assert clusters.davies_bouldin(gram, unsafe) == pytest.approx(davies_bouldin_score(rows, unsafe), rel=1e-9)
    eigenvalues = np.linalg.eigvalsh(np.cov(rows.T).reshape(rows.shape[1], -1))
    assert clusters.participation_ratio(gram) == pytest.approx(eigenvalues.sum() ** 2 / (eigenvalues**2).sum())


def test_by_hand_on_a_line():
    # safe {0, 2}, unsafe {10, 12}: nearest across 8, widest within 2; centroids 10 apart, mean distance to own 1.
    unsafe = np.array([False, False, True, True])
    gram = gram_matrix(np.array([[0.0], [2.0], [10.0], [12.0]]), 0.0)
    distances = clusters.distance_matrix(gram)
    assert clusters.dunn(distances, unsafe) == pytest.approx(4.0)
    assert clusters.davies_bouldin(gram, unsafe) == pytest.approx(0.2)  # (1 + 1) / 10
    # a = 2 for all; b = 11, 9, 9, 11: (9/11 + 7/9) / 2.
    assert clusters.silhouette(distances, unsafe) == pytest.approx((9 / 11 + 7 / 9) / 2)
    assert clusters.participation_ratio(gram) == pytest.approx(1.0)


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_indices_have_no_unit_and_dunn_takes_the_wider_group(unit):
    # safe {0, 1}, unsafe {10, 14}: nearest across 9, widest within 4, whichever group it is; a = 1, 1, 4, 4,
    # b = 12, 11, 9.5, 13.5 and all larger; centroids 11.5 apart, mean distances to them .5 and 2.
    gram = gram_matrix(unit * np.array([[0.0], [1.0], [10.0], [14.0]]), 0.0)
    distances = clusters.distance_matrix(gram)
    for unsafe in (np.array([False, False, True, True]), np.array([True, True, False, False])):
        assert clusters.dunn(distances, unsafe) == pytest.approx(9 / 4)
        assert clusters.silhouette(distances, unsafe) == pytest.approx((11 / 12 + 10 / 11 + 5.5 / 9.5 + 9.5 / 13.5) / 4)
        assert clusters.davies_bouldin(gram, unsafe) == pytest.approx(2.5 / 11.5)


def test_equal_rows_lie_0_apart_whatever_the_last_digit_of_their_product():
    # As two equal rows may leave a matrix product: 1 + 1 - 2 (1 + 1e-15) is below 0, and a root of it is no number.
    above = 1.0 + 1e-15
    products = np.array(
        [[1.0, above, -1.0, -1.0], [above, 1.0, -1.0, -1.0], [-1.0, -1, 1.0, above], [-1, -1, above, 1]]
    )
    unsafe = np.array([False, False, True, True])
    distances = clusters.distance_matrix(Gram(products, 0.0))
    np.testing.assert_array_equal(distances, np.where(unsafe[:, np.newaxis] == unsafe, 0.0, 2.0))
    assert clusters.davies_bouldin(Gram(products, 0.0), unsafe) == 0.0  # (0 + 0) / 2


def test_what_rounding_alone_may_produce_is_no_distance():
    # safe {-1, 1} and unsafe the same, shifted: centroids .3 apart. Rounding of .4 may produce that, .25 may not.
    unsafe = np.array([False, False, True, True])
    rows = np.array([[-1.0], [1.0], [-0.7], [1.3]])
    assert clusters.davies_bouldin(gram_matrix(rows, 0.25), unsafe) == pytest.approx(2 / 0.3)
    with pytest.raises(UndefinedScore, match="centroids coincide"):
        clusters.davies_bouldin(gram_matrix(rows, 0.4), unsafe)
    # On a line, root mean square distance to the mean sqrt(1.0225) = 1.011: one dimension, or none above rounding.
    assert clusters.participation_ratio(gram_matrix(rows / 10, 0.09)) == pytest.approx(1.0)
    with pytest.raises(UndefinedScore, match="no dimension"):
        clusters.participation_ratio(gram_matrix(rows / 10, 0.11))


def test_participation_ratio_counts_equal_directions():
    assert clusters.participation_ratio(Gram(np.diag([2.0, 2.0, 2.0, 0.0]), 0.0)) == pytest.approx(3.0)


def test_undefined_says_why():
    unsafe = np.array([False, False, True, True])
    same = gram_matrix(np.ones((4, 2)), 0.0)
    with pytest.raises(UndefinedScore, match="coincides with all others"):
        clusters.silhouette(clusters.distance_matrix(same), unsafe)
    with pytest.raises(UndefinedScore, match="centroids coincide"):
        clusters.davies_bouldin(same, unsafe)
    with pytest.raises(UndefinedScore, match="no spread"):
        clusters.dunn(clusters.distance_matrix(same), unsafe)
    with pytest.raises(UndefinedScore, match="no dimension"):
        clusters.participation_ratio(same)
    with pytest.raises(UndefinedScore, match="1 safe"):
        clusters.silhouette(clusters.distance_matrix(same), np.array([False, True, True, True]))
    line = gram_matrix(np.arange(4.0)[:, np.newaxis], 0.0)
    with pytest.raises(UndefinedScore, match="1 unsafe"):
        clusters.dunn(clusters.distance_matrix(line), np.array([False, False, False, True]))
