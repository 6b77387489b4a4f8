"""W and d2 of thousands of resamples from one n x n Gram matrix: a resample costs O(n^2) whatever the width D is.

Legend: n prompts, D width, B resamples, G [n, n] inner products of the centred rows, C [B, n] resampling weights
(how often a row counts). Per label the weights of a resample sum to that label's number of rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jobs.evaluate.metric.indices import Bools, Floats, Scatter, count_labels, require_spread


@dataclass(frozen=True)
class Gram:
    """Inner products of one matrix's rows about their mean, and the size of rounding in the rows' unit."""

    products: Floats
    """[n, n], symmetric."""
    rounding: float
    """Root mean square distance between equal rows that float32 rounding alone may produce."""

    def take(self, rows: Bools) -> Gram:
        """The same for some rows (still about the common mean, which changes no distance)."""
        return Gram(self.products[np.ix_(rows, rows)], self.rounding)


def gram_matrix(x: Floats, rounding: float) -> Gram:
    """Inner products of the rows of `x` [n, D] about their mean, in float64."""
    centred = x - x.mean(axis=0)  # translation changes no index; without it the products lose digits
    return Gram(centred @ centred.T, rounding)


def resampled_scatter(gram: Gram, unsafe: Bools, weights: Floats) -> Scatter:
    """W and d2 of every weighted copy of the rows.

    With m_g = sum_i c_i x_i / n_g: |m_g|^2 = c_g' G c_g / n_g^2, d2 = |m_safe|^2 + |m_unsafe|^2 - 2 m_safe . m_unsafe
    and W = sum_i c_i |x_i|^2 - sum_g n_g |m_g|^2.

    Args:
        gram: of n rows.
        unsafe: labels [n].
        weights: C [B, n]; the weights of each label sum to its number of rows.

    Returns:
        A `Scatter` of arrays [B].

    Raises:
        UndefinedScore: fewer than two rows in a group, or a resample without spread within the groups.
    """
    n_safe, n_unsafe = count_labels(unsafe)
    g, safe = gram.products, ~unsafe
    c_safe, c_unsafe = weights[:, safe], weights[:, unsafe]
    safe_sq = np.einsum("bi,bi->b", c_safe @ g[np.ix_(safe, safe)], c_safe)
    unsafe_sq = np.einsum("bi,bi->b", c_unsafe @ g[np.ix_(unsafe, unsafe)], c_unsafe)
    cross = np.einsum("bi,bi->b", c_safe @ g[np.ix_(safe, unsafe)], c_unsafe)
    within = weights @ np.diagonal(g) - safe_sq / n_safe - unsafe_sq / n_unsafe
    between_sq = safe_sq / n_safe**2 + unsafe_sq / n_unsafe**2 - 2.0 * cross / (n_safe * n_unsafe)
    require_spread(float(within.min()), unsafe.size, gram.rounding)
    return Scatter(within, np.maximum(between_sq, 0.0), n_safe, n_unsafe)


def observed_scatter(gram: Gram, unsafe: Bools) -> Scatter:
    """W and d2 of the rows themselves: every weight 1; scalars.

    Raises:
        UndefinedScore: fewer than two rows in a group, or no spread within the groups.
    """
    s = resampled_scatter(gram, unsafe, np.ones((1, unsafe.size)))
    return Scatter(s.within[0], s.between_sq[0], s.n_safe, s.n_unsafe)
