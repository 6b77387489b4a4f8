"""Permutation tests: against the definitions on explicit rows, their level and their power."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import calinski_harabasz_score

from jobs.evaluate.metric import indices as ix
from jobs.evaluate.metric.gram import gram_matrix, pair_grams
from jobs.evaluate.metric.permutation import (
    Swaps,
    change_p,
    draw_swaps,
    holm,
    permute_labels,
    separation_p,
    swap_forms,
    swapped_difference,
)

N = 60
UNSAFE = np.arange(N) >= N // 3
AXIOMS = [f"axiom {i % 3}" for i in range(N)]
"""Every third of the prompts; safe and unsafe in each."""


def test_labels_are_shuffled_within_axioms_only():
    shuffled = permute_labels(UNSAFE, AXIOMS, 200, seed=0)
    topics = np.asarray(AXIOMS)
    for topic in set(AXIOMS):
        assert set(shuffled[:, topics == topic].sum(axis=1)) == {UNSAFE[topics == topic].sum()}
    share = shuffled.mean(axis=0)
    np.testing.assert_allclose(share, UNSAFE.mean(), atol=0.15)
    assert not np.array_equal(shuffled, permute_labels(UNSAFE, AXIOMS, 200, seed=1))


@pytest.mark.parametrize("mixed", [False, True])
def test_separation_p_counts_the_shuffles_with_a_larger_chi(mixed):
    rng = np.random.default_rng(1)
    unsafe = rng.permutation(UNSAFE) if mixed else UNSAFE
    rows = rng.standard_normal((N, 5)) + 0.35 * unsafe[:, None]
    shuffled = permute_labels(unsafe, AXIOMS, 199, seed=2)
    observed = calinski_harabasz_score(rows, unsafe)
    larger = sum(calinski_harabasz_score(rows, labels) >= observed for labels in shuffled)
    assert 1 < larger < 150
    assert separation_p(gram_matrix(rows + 9.0, 0.0), unsafe, shuffled) == pytest.approx((1 + larger) / 200)


def expand(swaps: Swaps) -> np.ndarray:
    """+1 = kept, -1 = traded [2^bits, n], written down bit by bit."""
    return np.array([[(-1.0) ** (y & int(code)).bit_count() for code in swaps.codes] for y in range(2**swaps.bits)])


@pytest.mark.parametrize(("n", "at_least", "swaps"), [(60, 20, 64), (5, 9, 16), (5, 16, 16), (5, 17, 32), (64, 2, 128)])
def test_swaps_are_a_group_that_trades_any_two_prompts_in_all_ways_equally_often(n, at_least, swaps):
    drawn = draw_swaps(n, at_least, seed=1)
    signs = expand(drawn)
    assert signs.shape == (swaps, n)
    assert (signs[0] == 1).all()
    rows = {tuple(row) for row in signs}
    assert all(tuple(one * two) in rows for one in signs[:9] for two in signs)
    np.testing.assert_array_equal(signs.sum(axis=0), np.zeros(n))
    np.testing.assert_array_equal(signs.T @ signs, swaps * np.eye(n))
    assert not np.array_equal(drawn.codes, draw_swaps(n, at_least, seed=2).codes)


def test_swaps_of_some_prompts_are_those_of_all():
    drawn, rows = draw_swaps(60, 20, seed=1), UNSAFE
    np.testing.assert_array_equal(expand(drawn.take(rows)), expand(drawn)[:, rows])


@pytest.mark.parametrize("mixed", [False, True])
def test_swapped_difference_is_that_of_the_swapped_rows(mixed):
    rng = np.random.default_rng(3)
    unsafe = rng.permutation(UNSAFE) if mixed else UNSAFE
    base = rng.standard_normal((N, 4)) + unsafe[:, None]
    tuned = 5.0 * (base + 0.5 * rng.standard_normal((N, 4))) + 2.0
    swaps = draw_swaps(N, 20, seed=4)
    found = swapped_difference(swap_forms(pair_grams(base, tuned), unsafe), unsafe, swaps)
    a, b = (rows - rows.mean(axis=0) for rows in (base, tuned))
    a, b = (rows / np.sqrt(np.mean(np.sum(rows**2, axis=1))) for rows in (a, b))
    for sign, value in zip(expand(swaps), found, strict=True):
        kept = sign[:, None] > 0
        scatters = [ix.measure_scatter(rows, unsafe) for rows in (np.where(kept, a, b), np.where(kept, b, a))]
        expected = [float(s.between_sq / s.within) for s in scatters]
        assert value == pytest.approx(expected[0] - expected[1], rel=1e-9, abs=1e-12)


def test_change_p_is_1_for_identical_models_and_for_a_copy_moved_and_scaled():
    rng = np.random.default_rng(5)
    rows = rng.standard_normal((N, 4)) + UNSAFE[:, None]
    swaps = draw_swaps(N, 199, seed=6)
    for tuned in (rows.copy(), 8.0 * rows + 3.0):
        assert change_p(swap_forms(pair_grams(rows, tuned), UNSAFE), UNSAFE, swaps) == 1.0


def planted_p(seed: int, lost: float, turned: bool) -> tuple[float, float]:
    """p of the tuned model's separation and of the change, for a share of the separation lost."""
    rng = np.random.default_rng(seed)
    noise, own = rng.standard_normal((2, N, 8))
    shift = UNSAFE[:, None] * np.array([1.0, 1.0, 0, 0, 0, 0, 0, 0])
    base, tuned = noise + shift, (noise + 0.3 * own) / np.sqrt(1.09) + (1 - lost) * shift
    if turned:
        tuned = np.roll(tuned, 3, axis=1)  # the same cloud in other coordinates
    pair = pair_grams(base, tuned)
    shuffled, swaps = permute_labels(UNSAFE, AXIOMS, 199, seed), draw_swaps(N, 199, seed)
    return separation_p(pair.tuned, UNSAFE, shuffled), change_p(swap_forms(pair, UNSAFE), UNSAFE, swaps)


def test_level_and_power():
    unchanged = np.array([planted_p(seed, 0.0, turned=False) for seed in range(300)])
    assert np.mean(unchanged[:, 0] <= 0.05) > 0.95  # there is a separation
    assert 0.02 <= np.mean(unchanged[:, 1] <= 0.05) <= 0.08  # and no change
    lost = np.array([planted_p(seed, 1.0, turned=False) for seed in range(300, 500)])
    assert 0.02 <= np.mean(lost[:, 0] <= 0.05) <= 0.09
    assert np.mean(lost[:, 1] <= 0.05) > 0.95


def test_a_gain_is_as_significant_as_the_same_loss():
    rng = np.random.default_rng(8)
    rows, shift = rng.standard_normal((N, 8)), UNSAFE[:, None] * np.ones(8)
    base, tuned = rows + shift, rows + 0.1 * rng.standard_normal((N, 8))
    swaps = draw_swaps(N, 199, seed=8)
    lost, gained = (
        change_p(swap_forms(pair_grams(*pair), UNSAFE), UNSAFE, swaps) for pair in ((base, tuned), (tuned, base))
    )
    assert lost == gained == 1 / 256


def test_coordinates_that_turn_raise_no_alarm():
    turned = np.array([planted_p(seed, 0.0, turned=True) for seed in range(200)])
    assert np.mean(turned[:, 1] <= 0.05) <= 0.08


def test_holm_by_hand():
    # Sorted .01 .02 .03 .04 times 4 3 2 1 = .04 .06 .06 .04, made monotone: .04 .06 .06 .06.
    assert holm([0.02, 0.01, None, 0.04, 0.03]) == pytest.approx([0.06, 0.04, None, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([None]) == [None]
    assert holm([]) == []


def test_undefined_says_why():
    same = gram_matrix(np.ones((N, 2)), 0.0)
    with pytest.raises(ix.UndefinedScore, match="no spread"):
        separation_p(same, UNSAFE, permute_labels(UNSAFE, AXIOMS, 9, 0))
    with pytest.raises(ix.UndefinedScore, match="no spread"):
        swap_forms(pair_grams(np.ones((N, 2)), np.ones((N, 2))), UNSAFE)
    noise = np.random.default_rng(7).standard_normal((N, 2))
    with pytest.raises(ix.UndefinedScore, match="1 unsafe"):
        separation_p(gram_matrix(noise, 0.0), np.arange(N) == 3, permute_labels(UNSAFE, AXIOMS, 9, 0))
    # One point for each label: spread between the rows, none within the labels.
    points, swaps = UNSAFE[:, None] * np.ones(2), draw_swaps(N, 20, seed=1)
    for pair in ((points, points), (points, noise), (noise, points)):
        with pytest.raises(ix.UndefinedScore, match="no spread within"):
            change_p(swap_forms(pair_grams(*pair), UNSAFE), UNSAFE, swaps)
