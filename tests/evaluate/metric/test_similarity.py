"""Debiased CKA: the estimator against its definition, and what the plain form gets wrong."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from jobs.evaluate.metric.gram import gram_matrix
from jobs.evaluate.metric.indices import UndefinedScore
from jobs.evaluate.metric.similarity import debiased_cka, hsic_unbiased


def test_hsic_is_the_u_statistic_it_claims_to_be():
    # Its definition: means over ordered tuples of different rows of k_ij l_ij + k_ij l_qr - 2 k_ij l_iq.
    rng = np.random.default_rng(0)
    k, l = (rows @ rows.T for rows in rng.standard_normal((2, 6, 3)))  # noqa: E741
    pairs = np.mean([k[i, j] * l[i, j] for i, j in itertools.permutations(range(6), 2)])
    crossed = np.mean([k[i, j] * l[q, r] for i, j, q, r in itertools.permutations(range(6), 4)])
    shared = np.mean([k[i, j] * l[i, q] for i, j, q in itertools.permutations(range(6), 3)])
    assert hsic_unbiased(k, l) == pytest.approx(pairs + crossed - 2 * shared)


def test_unrelated_wide_models_score_0_where_the_plain_form_says_nearly_1():
    rng = np.random.default_rng(1)
    found, plain = [], []
    for _ in range(20):
        one, two = (gram_matrix(rows, 0.0) for rows in rng.standard_normal((2, 64, 2000)))
        found.append(debiased_cka(one, two))
        norms = np.linalg.norm(one.products) * np.linalg.norm(two.products)
        plain.append(np.vdot(one.products, two.products) / norms)
    assert abs(np.median(found)) < 0.2
    assert np.mean(plain) > 0.9


def test_1_for_a_rotated_scaled_shifted_copy_and_the_planted_value_between():
    rng = np.random.default_rng(2)
    rows = rng.standard_normal((200, 5))
    rotation = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    copy = 3.0 * rows @ rotation + 7.0
    assert debiased_cka(gram_matrix(rows, 0.0), gram_matrix(copy, 0.0)) == pytest.approx(1.0)
    # Five of ten equal directions are shared: |C_xy|_F^2 = 5 against 10, so CKA = .5.
    values = []
    for _ in range(20):
        shared, own_x, own_y = rng.standard_normal((3, 100, 5))
        x, y = np.hstack([shared, own_x]), np.hstack([shared, own_y])
        values.append(debiased_cka(gram_matrix(x, 0.0), gram_matrix(y, 0.0)))
    assert np.mean(values) == pytest.approx(0.5, abs=0.03)


def test_undefined_says_why():
    rng = np.random.default_rng(3)
    few = gram_matrix(rng.standard_normal((3, 2)), 0.0)
    with pytest.raises(UndefinedScore, match="3 prompt"):
        debiased_cka(few, few)
    same = gram_matrix(np.ones((8, 2)), 0.0)
    with pytest.raises(UndefinedScore, match="no structure"):
        debiased_cka(same, same)
    eight = gram_matrix(rng.standard_normal((8, 2)), 0.0)
    for pair in ((same, eight), (eight, same)):
        with pytest.raises(UndefinedScore, match="no structure"):
            debiased_cka(*pair)
    pairs = gram_matrix(np.array([[0.0], [0.0], [1.0], [1.0]]), 0.0)  # four are enough
    assert debiased_cka(pairs, pairs) == pytest.approx(1.0)
