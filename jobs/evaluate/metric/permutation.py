"""Permutation tests: is there any separation, did it change, and how many tests were asked.

Legend: n prompts, P permutations, G [n, n] inner products of the rows about their mean. Permutations are drawn
once for prompts in canonical order (`bootstrap.canonical_order`) and shared by every model and layer. The quadratic
forms of shuffled labels run in float32, whose rounding is far below the spread of a null distribution; ties within it
count as "at least as extreme", so a p value errs upwards. With P shuffles the smallest p is 1 / (P + 1).

Swaps of base and tuned need no matrix product for each: they are drawn as a random group. Every prompt gets a code of k
bits, and swap y (0 ... 2^k - 1) trades the prompts whose code shares an odd number of bits with y. All 2^k swaps form a
subgroup of all swaps, so the test over them, the identity among them, is exact (Hemerik & Goeman 2018, TEST 27:811);
the codes differ and none is 0, so any two prompts are kept and traded in all four ways equally often. Since
s_i(y) s_j(y) = (-1)^popcount(y & (code_i ^ code_j)), the sums over G for all swaps together are the Walsh-Hadamard
transform of the n^2 products added up by code_i ^ code_j: O(n^2 + k 2^k) in place of O(2^k n^2), in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import hadamard

from jobs.evaluate.metric.gram import Gram, PairGrams, label_rows, quadratic_forms
from jobs.evaluate.metric.indices import Bools, Floats, count_labels, require_spread

Singles = NDArray[np.float32]
_TIE = 1e-5
"""Relative difference up to which two float32 statistics count as equal."""
_NOTHING = 1e-12
"""Statistics of standardised rows below this are rounding of a float64 0."""


def permute_labels(unsafe: Bools, axioms: Sequence[str], permutations: int, seed: int) -> Singles:
    """Shuffle the labels within each axiom, so that topics keep their share of unsafe prompts.

    Returns:
        1 = unsafe, 0 = safe [P, n].
    """
    rng = np.random.default_rng(seed)
    topics = np.asarray(axioms, dtype=np.str_)
    shuffled = np.empty((permutations, unsafe.size), dtype=np.float32)
    for topic in np.unique(topics):
        rows = np.flatnonzero(topics == topic)
        order = np.argsort(rng.random((permutations, rows.size), dtype=np.float32), axis=1, kind="stable")
        shuffled[:, rows] = unsafe[rows].astype(np.float32)[order]
    return shuffled


def draw_swaps(n: int, at_least: int, seed: int) -> Swaps:
    """Draw a random group of swaps of base and tuned.

    Args:
        n: prompts.
        at_least: swaps wanted; their number is the next power of two, and above n.
        seed: of the codes.
    """
    bits = max((at_least - 1).bit_length(), n.bit_length(), 2)
    codes = np.random.default_rng(seed).choice(2**bits - 1, size=n, replace=False) + 1
    return Swaps(np.asarray(codes, dtype=np.intp), bits)


def separation_p(gram: Gram, unsafe: Bools, shuffled: Singles) -> float:
    """Chance of at least this separation if the labels meant nothing (PERMANOVA; Anderson 2001).

    The pseudo-F is CHI. At fixed rows it rises with TrB alone, and TrB = z' G z (1 / n_safe + 1 / n_unsafe) for centred
    rows and 0/1 labels z, so z' G z is compared.

    Args:
        gram: of n rows.
        unsafe: labels [n].
        shuffled: labels under the null [P, n], each row with as many unsafe as `unsafe`.

    Returns:
        One-sided p in [1 / (P + 1), 1].

    Raises:
        UndefinedScore: fewer than two rows in a group, or no spread between the rows.
    """
    count_labels(unsafe)
    products = gram.products
    scale = float(np.trace(products))
    require_spread(scale, unsafe.size, gram.rounding)
    z = unsafe.astype(np.float64)
    observed = float(z @ products @ z) / scale
    null = quadratic_forms((products / scale).astype(np.float32), shuffled)
    return _tail(null, observed)


@dataclass(frozen=True)
class Swaps:
    """A group of swaps: number y of 2^bits trades the prompts whose code shares an odd number of bits with y."""

    codes: NDArray[np.intp]
    """[n], each in [1, 2^bits)."""
    bits: int

    def take(self, rows: Bools) -> Swaps:
        """The same swaps of some prompts."""
        return Swaps(self.codes[rows], self.bits)

    def sums(self, values: Floats) -> Floats:
        """Sum of s_i(y) values_i over the prompts, for every swap y [2^bits]; values [n], 0 where none is wanted."""
        return self._transform(self.codes, values)

    def forms(self, products: Floats, rows: slice | Bools, columns: slice | Bools) -> Floats:
        """Sum of s_i(y) s_j(y) products_ij over some rows i and columns j, for every swap y [2^bits]."""
        pairs = self.codes[rows][:, np.newaxis] ^ self.codes[columns]
        return self._transform(pairs.ravel(), products[rows][:, columns].ravel())

    def _transform(self, codes: NDArray[np.intp], values: Floats) -> Floats:
        """Walsh-Hadamard transform of the values added up by code [2^bits].

        The Hadamard matrix of size 2^k is the Kronecker product of two small ones.
        """
        low = self.bits // 2
        added: Floats = np.bincount(codes, values, minlength=2**self.bits).astype(np.float64)
        square = added.reshape(2 ** (self.bits - low), 2**low)
        return np.asarray(hadamard(len(square)) @ square @ hadamard(2**low)).ravel()


@dataclass(frozen=True)
class SwapForms:
    """What the swap test needs of a pair: m and h are half the sum and half the difference of both models' rows."""

    half_difference: Floats
    """Inner products of h [n, n]."""
    mean_dot_h: Floats
    """Inner products of the label means of m (safe, unsafe) with h [2, n]."""
    mean_products: Floats
    """Inner products of the label means of m [2, 2]."""
    m_dot_h: Floats
    """Inner product of each prompt's m and h [n]."""
    total: float
    """Sum of |m|^2 + |h|^2 over the prompts."""


def swap_forms(pair: PairGrams, unsafe: Bools) -> SwapForms:
    """Prepare the swap test.

    Each model's rows are first moved to mean 0 and scaled to root mean square norm 1, which changes none of its
    indices: otherwise trading places between two clouds that only lie apart, or differ in size, would look like a
    change.

    Args:
        pair: of n prompts.
        unsafe: labels [n].

    Raises:
        UndefinedScore: fewer than two rows in a group, or a model whose rows coincide.
    """
    n_safe, n_unsafe = count_labels(unsafe)
    sizes = []
    for gram in (pair.base, pair.tuned):
        require_spread(float(np.trace(gram.products)), unsafe.size, gram.rounding)
        sizes.append(float(np.sqrt(np.trace(gram.products) / unsafe.size)))
    aa, bb = pair.base.products / sizes[0] ** 2, pair.tuned.products / sizes[1] ** 2
    ab = pair.cross / (sizes[0] * sizes[1])
    hh, mm, mh = (aa + bb - ab - ab.T) / 4.0, (aa + bb + ab + ab.T) / 4.0, (aa - bb - ab + ab.T) / 4.0
    averages = np.stack([~unsafe / n_safe, unsafe / n_unsafe])
    return SwapForms(
        half_difference=hh,
        mean_dot_h=averages @ mh,
        mean_products=averages @ mm @ averages.T,
        m_dot_h=np.diagonal(mh).copy(),
        total=float(np.trace(mm) + np.trace(hh)),
    )


def change_p(forms: SwapForms, unsafe: Bools, swaps: Swaps) -> float:
    """Chance of at least this change of f2 if it did not matter which of the two models a prompt's state came from.

    Every swap trades base and tuned of some prompts: base' = m + s h, tuned' = m - s h. Compared is the size of
    f2(base') - f2(tuned'), which is proportional to d2 / W of the one minus the other.

    Args:
        forms: of the pair.
        unsafe: labels [n].
        swaps: of the same prompts.

    Returns:
        Two-sided p in [2^-bits, 1]; 1 for identical models.

    Raises:
        UndefinedScore: fewer than two rows in a group, or no spread within the groups.
    """
    sizes = np.abs(swapped_difference(forms, unsafe, swaps))
    return float(np.mean(_reaches(sizes, float(sizes[0]))))


def swapped_difference(forms: SwapForms, unsafe: Bools, swaps: Swaps) -> Floats:
    """d2 / W of the swapped base minus that of the swapped tuned model, for every swap; number 0 is the observed one.

    With the label sums H_g = sum s_i h_i:
    |mean_g +- H_g / n_g|^2 = |mean_g|^2 +- 2 mean_g . H_g / n_g + |H_g|^2 / n_g^2.

    Args:
        forms: of the pair.
        unsafe: labels [n].
        swaps: of the same prompts.

    Returns:
        [2^bits].
    """
    n_safe, n_unsafe = count_labels(unsafe)
    h, (safe, other) = forms.half_difference, label_rows(unsafe)
    hh_safe = swaps.forms(h, safe, safe) / n_safe**2
    hh_unsafe = swaps.forms(h, other, other) / n_unsafe**2
    hh_cross = swaps.forms(h, safe, other) / (n_safe * n_unsafe)
    # m_<label> . H_<label> / n: the mean of m over one label with the mean of s h over the safe, and the unsafe.
    of_safe, of_unsafe = np.where(unsafe, 0.0, 1.0 / n_safe), np.where(unsafe, 1.0 / n_unsafe, 0.0)
    safe_safe, unsafe_safe = (swaps.sums(row * of_safe) for row in forms.mean_dot_h)
    safe_unsafe, unsafe_unsafe = (swaps.sums(row * of_unsafe) for row in forms.mean_dot_h)
    mm = forms.mean_products
    even = mm[0, 0] + mm[1, 1] - 2.0 * mm[0, 1] + hh_safe + hh_unsafe - 2.0 * hh_cross
    odd = 2.0 * ((unsafe_unsafe - safe_unsafe) - (unsafe_safe - safe_safe))
    within_even = forms.total - n_safe * (mm[0, 0] + hh_safe) - n_unsafe * (mm[1, 1] + hh_unsafe)
    within_odd = 2.0 * (swaps.sums(forms.m_dot_h) - n_safe * safe_safe - n_unsafe * unsafe_unsafe)
    require_spread(float((within_even - np.abs(within_odd)).min()), unsafe.size, 1e-6)
    first, second = (even + odd) / (within_even + within_odd), (even - odd) / (within_even - within_odd)
    return np.asarray(first - second)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment for the tests that exist (Holm 1979); a None stays None and is not counted.

    Returns:
        max over smaller-or-equal p of (m - rank) p, at most 1, in the order given.
    """
    present = np.asarray([p for p in p_values if p is not None], dtype=np.float64)
    order = np.argsort(present, kind="stable")
    stepped = np.maximum.accumulate(present[order] * np.arange(present.size, 0, -1))
    adjusted = np.empty_like(present)
    adjusted[order] = np.minimum(stepped, 1.0)
    values = iter(adjusted.tolist())
    return [None if p is None else next(values) for p in p_values]


def _tail(null: NDArray[np.floating], observed: float) -> float:
    """(1 + number at least as large) / (P + 1): the observed order counts as one of them (Phipson & Smyth 2010)."""
    return (1 + int(np.count_nonzero(_reaches(null, observed)))) / (null.size + 1)


def _reaches(null: NDArray[np.floating], observed: float) -> Bools:
    """Which values are at least as large, up to rounding."""
    return np.asarray(null >= observed - _TIE * abs(observed) - _NOTHING)
