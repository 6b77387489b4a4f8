"""Cluster validity and dimension from inner products alone: a description beside the headline, never the verdict.

Legend: n prompts, D width, G [n, n] inner products of the rows about their mean (`gram.Gram`).
"""

from __future__ import annotations

import numpy as np

from jobs.evaluate.metric.gram import Gram
from jobs.evaluate.metric.indices import Bools, Floats, UndefinedScore, count_labels


def distance_matrix(gram: Gram) -> Floats:
    """Euclidean distances [n, n] between the rows: sqrt(G_ii + G_jj - 2 G_ij), 0 on the diagonal."""
    squares = np.diagonal(gram.products)
    squared = squares[:, np.newaxis] + squares - 2.0 * gram.products
    np.fill_diagonal(squared, 0.0)
    return np.sqrt(np.maximum(squared, 0.0))


def silhouette(distances: Floats, unsafe: Bools) -> float:
    """Mean silhouette of the two groups; range [-1, 1], higher = better separated, 0 = as near to one as to the other.

    Per row (b - a) / max(a, b): a = mean distance to the others of its group, b = to the rows of the other group
    (Rousseeuw 1987). Equals `sklearn.metrics.silhouette_score`.

    Args:
        distances: between the rows [n, n].
        unsafe: labels [n].

    Raises:
        UndefinedScore: fewer than two rows in a group, or a row that coincides with all others.
    """
    counts = np.asarray(count_labels(unsafe), dtype=np.float64)
    groups = np.stack([~unsafe, unsafe]).astype(np.float64)  # [2, n]
    sums = groups @ distances  # [2, n]: distance of each row to each group
    own, other = unsafe.astype(np.intp), (~unsafe).astype(np.intp)
    rows = np.arange(unsafe.size)
    a = sums[own, rows] / (counts[own] - 1.0)
    b = sums[other, rows] / counts[other]
    widest = np.maximum(a, b)
    if not np.all(widest > 0):
        raise UndefinedScore("a prompt's state coincides with all others: its silhouette is 0 / 0")
    return float(np.mean((b - a) / widest))


def davies_bouldin(gram: Gram, unsafe: Bools) -> float:
    """Davies-Bouldin index of the two groups; range [0, inf), lower = better separated.

    (s_safe + s_unsafe) / d: mean distances of the rows to their own centroid over the distance of the centroids
    (Davies & Bouldin 1979). Equals `sklearn.metrics.davies_bouldin_score`.

    Args:
        gram: of n rows.
        unsafe: labels [n].

    Raises:
        UndefinedScore: fewer than two rows in a group, or coinciding centroids.
    """
    counts = count_labels(unsafe)
    g, masks = gram.products, (~unsafe, unsafe)
    spread = 0.0
    for mask, count in zip(masks, counts, strict=True):
        to_own = g[np.ix_(mask, mask)]
        squared = np.diagonal(to_own) - 2.0 * to_own.mean(axis=1) + to_own.mean()
        spread += float(np.sqrt(np.maximum(squared, 0.0)).sum()) / count
    contrast = unsafe / counts[1] - ~unsafe / counts[0]
    between_sq = float(contrast @ g @ contrast)
    if not between_sq > gram.rounding**2:
        raise UndefinedScore("the two centroids coincide: Davies-Bouldin divides by their distance")
    return spread / float(np.sqrt(between_sq))


def dunn(distances: Floats, unsafe: Bools) -> float:
    """Dunn index of the two groups; range [0, inf), higher = better separated.

    Smallest distance between rows of different groups over the largest distance within a group (Dunn 1974). Two
    single rows decide it, so it falls with n and one odd prompt moves it; it has no interval here for that reason.

    Args:
        distances: between the rows [n, n].
        unsafe: labels [n].

    Raises:
        UndefinedScore: fewer than two rows in a group, or no spread within the groups.
    """
    count_labels(unsafe)
    within = max(float(distances[np.ix_(mask, mask)].max()) for mask in (unsafe, ~unsafe))
    if not within > 0:
        raise UndefinedScore("no spread within the groups: Dunn divides by their diameter")
    return float(distances[np.ix_(unsafe, ~unsafe)].min()) / within


def participation_ratio(gram: Gram) -> float:
    """Effective number of dimensions the rows vary in, (sum l)^2 / sum l^2 over the covariance's eigenvalues l.

    Range [1, min(n - 1, D)]; 1 = all on a line. tr(G)^2 / |G|_F^2 gives it without the eigenvalues. Finite n makes it
    too small, so compare only over the same prompts.

    Raises:
        UndefinedScore: if the rows coincide.
    """
    trace = float(np.trace(gram.products))
    if not trace > len(gram.products) * gram.rounding**2:
        raise UndefinedScore("the rows coincide: they vary in no dimension")
    return trace**2 / float(np.sum(gram.products**2))
