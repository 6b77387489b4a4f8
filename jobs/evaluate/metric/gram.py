"""W and d2 of thousands of resamples from one n x n Gram matrix: a resample costs O(n^2) whatever the width D is.

Legend: n prompts, D width, B resamples, G [n, n] inner products of the centred rows, C [B, n] resampling weights
(how often a row counts). Per label the weights of a resample sum to that label's number of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import get_blas_funcs

from jobs.evaluate.metric.indices import Bools, Floats, Scatter, count_labels, require_spread


@dataclass(frozen=True)
class Gram:
    """Inner products of one matrix's rows about their mean, and the size of rounding in the rows' unit."""

    products: Floats
    """[n, n], symmetric."""
    rounding: float
    """Root mean square distance between equal rows that float32 rounding alone may produce."""

    def take(self, rows: Bools) -> Gram:
        """The same for some rows, about their own mean."""
        return Gram(centre_products(self.products[np.ix_(rows, rows)]), self.rounding)


@dataclass(frozen=True)
class PairGrams:
    """Inner products of two models' rows on the same n prompts, each model about its own mean."""

    base: Gram
    tuned: Gram
    multiply: Callable[[], Floats]
    """Makes `cross`: a matrix product as dear as the other two together, which not every reader needs."""

    @cached_property
    def cross(self) -> Floats:
        """Base rows (first axis) with tuned rows [n, n]; not symmetric."""
        return self.multiply()

    def take(self, rows: Bools) -> PairGrams:
        """The same for some prompts, each model about its mean over them."""
        return PairGrams(
            self.base.take(rows), self.tuned.take(rows), lambda: centre_products(self.cross[np.ix_(rows, rows)])
        )


def pair_grams(base: Floats, tuned: Floats, base_rounding: float = 0.0, tuned_rounding: float = 0.0) -> PairGrams:
    """Inner products within and across two models' rows [n, D], in float64.

    They are centred after the multiplication, which spares two copies of all rows and costs digits only where the
    offset that all rows share is many times their spread (`embed_pair` has taken off the base's).
    """
    of_base, of_tuned = (centre_products(rows @ rows.T) for rows in (base, tuned))
    return PairGrams(
        Gram(of_base, base_rounding), Gram(of_tuned, tuned_rounding), lambda: centre_products(base @ tuned.T)
    )


def gram_matrix(x: Floats, rounding: float) -> Gram:
    """Inner products of the rows of `x` [n, D] about their mean, in float64."""
    centred = x - x.mean(axis=0)  # translation changes no index; without it the products lose digits
    return Gram(centred @ centred.T, rounding)


def centre_products(products: Floats) -> Floats:
    """Move inner products [n, n] to the rows' mean: subtract row and column means, add the overall mean."""
    across = products.mean(axis=0)
    return np.asarray(products - across - products.mean(axis=1)[:, np.newaxis] + across.mean())


def quadratic_forms(products: NDArray[np.floating], vectors: NDArray[np.floating]) -> NDArray[np.floating]:
    """Form v' G v for every row v of `vectors` [B, n], in the precision of its arguments.

    G is symmetric, so v' G v = 2 v' T v with T its upper triangle and half its diagonal: half of the multiplications.
    """
    upper = np.triu(products)
    np.fill_diagonal(upper, np.diagonal(products) / 2)
    multiply = get_blas_funcs("trmm", (upper, vectors))
    # T is upper in rows, and BLAS reads columns first: its transpose from the right of it is the same product.
    multiplied = multiply(2.0, np.asfortranarray(upper), vectors.T).T
    return np.asarray(np.vecdot(multiplied, vectors))


def label_rows(unsafe: Bools) -> tuple[slice | Bools, slice | Bools]:
    """Where the safe and the unsafe rows are: slices (which need no copies) if all safe rows come first, else masks."""
    n_safe = int(np.count_nonzero(~unsafe))
    if unsafe[n_safe:].all():
        return slice(0, n_safe), slice(n_safe, unsafe.size)
    return ~unsafe, unsafe


def resampled_scatter(gram: Gram, unsafe: Bools, weights: NDArray[np.floating]) -> Scatter:
    """W and d2 of every weighted copy of the rows.

    With m_g = sum_i c_i x_i / n_g: |m_g|^2 = c_g' G c_g / n_g^2, d2 = |m_safe|^2 + |m_unsafe|^2 - 2 m_safe . m_unsafe
    and W = sum_i c_i |x_i|^2 - sum_g n_g |m_g|^2.

    Args:
        gram: of n rows.
        unsafe: labels [n].
        weights: C [B, n]; the weights of each label sum to its number of rows. Computed in their precision: float32
            halves the time, and its rounding (1e-6 of the value) is nothing beside the spread of a cloud.

    Returns:
        A `Scatter` of arrays [B].

    Raises:
        UndefinedScore: fewer than two rows in a group, or a resample without spread within the groups.
    """
    n_safe, n_unsafe = count_labels(unsafe)
    g, (safe, other) = gram.products.astype(weights.dtype, copy=False), label_rows(unsafe)
    c_safe, c_unsafe = weights[:, safe], weights[:, other]
    safe_sq = quadratic_forms(g[safe][:, safe], c_safe).astype(np.float64)
    unsafe_sq = quadratic_forms(g[other][:, other], c_unsafe).astype(np.float64)
    cross = np.vecdot(c_safe @ g[safe][:, other], c_unsafe).astype(np.float64)
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
