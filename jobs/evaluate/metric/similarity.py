"""How much of one model's picture of the prompts the other model keeps: debiased linear CKA.

Legend: n prompts, K and L [n, n] inner products of the same prompts' rows in either model.
"""

from __future__ import annotations

import numpy as np

from jobs.evaluate.metric.gram import Gram
from jobs.evaluate.metric.indices import Floats, UndefinedScore

MIN_ROWS = 4
"""The unbiased estimator divides by n - 3."""


def hsic_unbiased(k: Floats, l: Floats) -> float:  # noqa: E741 - the field's letters
    """Unbiased Hilbert-Schmidt independence criterion, HSIC_1 of Song et al. 2012 (JMLR 13:1393, equation 5).

    (tr(K'L') + 1'K'1 1'L'1 / ((n-1)(n-2)) - 2 / (n-2) 1'K'L'1) / (n(n-3)) with K', L' the matrices with a zero
    diagonal. 0 on average for independent rows, so it may be negative. Centring K or L changes nothing.

    Args:
        k: inner products [n, n], symmetric.
        l: the other model's [n, n].

    Raises:
        UndefinedScore: fewer than four rows.
    """
    n = len(k)
    if n < MIN_ROWS:
        raise UndefinedScore(f"{n} prompt(s): unbiased HSIC needs at least {MIN_ROWS}")
    k_diagonal, l_diagonal = np.diagonal(k), np.diagonal(l)
    k_sums, l_sums = k.sum(axis=1) - k_diagonal, l.sum(axis=1) - l_diagonal
    trace = float(np.vdot(k, l)) - float(k_diagonal @ l_diagonal)
    total = float(k_sums.sum()) * float(l_sums.sum()) / ((n - 1) * (n - 2))
    return (trace + total - 2.0 / (n - 2) * float(k_sums @ l_sums)) / (n * (n - 3))


def debiased_cka(base: Gram, tuned: Gram) -> float:
    """Debiased linear centred kernel alignment; 1 = the same up to rotation, shift and scale, about 0 = unrelated.

    HSIC_1(K, L) / sqrt(HSIC_1(K, K) HSIC_1(L, L)). The plain form (Kornblith et al. 2019, arXiv 1905.00414) comes out
    near 1 for any two models once the width exceeds n; this one does not (Murphy et al. 2024, arXiv 2405.01012).
    Slightly outside [-1, 1] only by estimation noise.

    Args:
        base: of n rows.
        tuned: of the same rows.

    Raises:
        UndefinedScore: fewer than four rows, or a model without structure among the prompts (its HSIC_1 is not
            positive).
    """
    cross = hsic_unbiased(base.products, tuned.products)
    own = [hsic_unbiased(gram.products, gram.products) for gram in (base, tuned)]
    if not min(own) > 0:
        raise UndefinedScore("a model's states have no structure above chance: CKA divides by it")
    return cross / float(np.sqrt(own[0] * own[1]))
