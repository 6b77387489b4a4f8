"""What separation the same states have under other labels: shuffled ones (chance) and partly wrong ones (label noise).

Legend: n prompts, X [n, D] their centred states, P relabellings, Y [P, n] their labels.
"""

from __future__ import annotations

import numpy as np

from jobs.evaluate.metric import indices
from jobs.evaluate.metric.indices import Bools, Floats, Scatter, count_labels, require_spread


def shuffle_labels(unsafe: Bools, draws: int, seed: int) -> Bools:
    """Shuffle the labels.

    Args:
        unsafe: labels [n].
        draws: P.
        seed: of the shuffles.

    Returns:
        Y [P, n]: each row has as many of either label as `unsafe`.
    """
    rng = np.random.default_rng(seed)
    return np.asarray(rng.permuted(np.tile(unsafe, (draws, 1)), axis=1), dtype=np.bool_)


def count_flips(unsafe: Bools, share: float) -> tuple[int, int]:
    """How many safe and unsafe labels make up a share of them: rounded, at least one each."""
    n_unsafe = int(np.count_nonzero(unsafe))
    n_safe = int(unsafe.size) - n_unsafe
    return max(1, round(share * n_safe)), max(1, round(share * n_unsafe))


def flip_labels(unsafe: Bools, share: float, draws: int, seed: int) -> Bools:
    """Make a share of the labels wrong.

    Args:
        unsafe: labels [n].
        share: of each label's prompts, in (0, 1).
        draws: P.
        seed: of the choice.

    Returns:
        Y [P, n]: in each row `count_flips` of either label are turned, chosen at random.
    """
    rng = np.random.default_rng(seed)
    flipped = np.tile(unsafe, (draws, 1))
    for label, count in zip((False, True), count_flips(unsafe, share), strict=True):
        rows = np.flatnonzero(unsafe == label)
        chosen = rows[np.argsort(rng.random((draws, rows.size)), axis=1, kind="stable")[:, :count]]
        np.put_along_axis(flipped, chosen, not label, axis=1)
    return flipped


def relabelled_scatter(centred: Floats, rounding: float, labels: Bools) -> Scatter:
    """W and d2 of the same rows under each relabelling.

    The rows are centred, so the group sums are u = Y X and -u: d2 = |u|^2 (n / (n_safe n_unsafe))^2 and
    W = sum |x|^2 - (n_safe n_unsafe / n) d2.

    Args:
        centred: X [n, D] with mean 0.
        rounding: root mean square distance that rounding alone produces, in the unit of X.
        labels: Y [P, n], the same number of unsafe prompts in every row.

    Returns:
        A `Scatter` of arrays [P].

    Raises:
        UndefinedScore: fewer than two rows in a group, or no spread within the groups.
    """
    n_safe, n_unsafe = count_labels(labels[0])
    sums = labels.astype(np.float64) @ centred
    sums_sq = np.einsum("pd,pd->p", sums, sums)
    n, product = labels.shape[1], n_safe * n_unsafe
    between_sq = sums_sq * (n / product) ** 2
    within = np.einsum("nd,nd->", centred, centred) - (product / n) * between_sq
    require_spread(float(within.min()), n, rounding)
    return Scatter(within, between_sq, n_safe, n_unsafe)


def relabelled_f2(centred: Floats, rounding: float, labels: Bools) -> Floats:
    """f2 of the same rows under each relabelling Y [P, n]; see `relabelled_scatter`."""
    return indices.f2(relabelled_scatter(centred, rounding, labels))


def centre_rows(values: Floats) -> Floats:
    """The same points about their mean in at most n dimensions: no distance, index or penalised probe changes.

    Args:
        values: [n, D].

    Returns:
        [n, min(n, D)]; for D > n the coordinates along the principal axes, from the n x n inner products.
    """
    centred = values - values.mean(axis=0)
    if centred.shape[1] <= centred.shape[0]:
        return np.asarray(centred)
    squares, axes = np.linalg.eigh(centred @ centred.T)
    return np.asarray(axes * np.sqrt(np.maximum(squares, 0.0)))
