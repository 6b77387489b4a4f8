"""What separation the same states have under other labels: shuffled ones (chance) and partly wrong ones (label noise).

Legend: n prompts, G [n, n] inner products of the centred rows, P relabellings, Y [P, n] their labels.
"""

from __future__ import annotations

import numpy as np

from jobs.evaluate.metric import indices
from jobs.evaluate.metric.gram import Gram
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


def relabelled_scatter(gram: Gram, labels: Bools) -> Scatter:
    """W and d2 of the same rows under each relabelling.

    The rows are centred, so both group sums are u = Y x and -u: d2 = |u|^2 (n / (n_safe n_unsafe))^2 and
    W = tr G - (n_safe n_unsafe / n) d2.

    Args:
        gram: of n rows, about their mean.
        labels: Y [P, n], the same number of unsafe prompts in every row.

    Returns:
        A `Scatter` of arrays [P].

    Raises:
        UndefinedScore: fewer than two rows in a group, or no spread within the groups.
    """
    n_safe, n_unsafe = count_labels(labels[0])
    marks = labels.astype(np.float64)
    sums_sq = np.einsum("pn,pn->p", marks @ gram.products, marks)
    n, product = labels.shape[1], n_safe * n_unsafe
    between_sq = np.maximum(sums_sq, 0.0) * (n / product) ** 2
    within = np.trace(gram.products) - (product / n) * between_sq
    require_spread(float(within.min()), n, gram.rounding)
    return Scatter(within, between_sq, n_safe, n_unsafe)


def relabelled_f2(gram: Gram, labels: Bools) -> Floats:
    """f2 of the same rows under each relabelling Y [P, n]; see `relabelled_scatter`."""
    return indices.f2(relabelled_scatter(gram, labels))
