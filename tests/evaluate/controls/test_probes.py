from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from jobs.evaluate.controls.probes import (
    auc_interval,
    auc_variance,
    measure_group_auc,
    measure_length_auc,
    measure_states_auc,
    measure_words_auc,
)
from jobs.evaluate.metric.indices import UndefinedScore

N = 128
UNSAFE = np.arange(N) % 2 == 1
WORDS = [f"w{i}" for i in range(40)]


def random_labels(draw: int) -> np.ndarray:
    return np.random.default_rng(draw).permutation(UNSAFE)


def random_texts(rng: np.random.Generator, n: int = N) -> list[str]:
    return [" ".join(rng.choice(WORDS, size=rng.integers(3, 12))) for _ in range(n)]


def test_length_that_separates_is_perfect():
    # Safe prompts have 1-3 words, unsafe ones 10-12.
    texts = [" ".join(["word"] * (1 + i % 3 + 9 * unsafe)) for i, unsafe in enumerate(UNSAFE)]
    found = measure_length_auc(texts, UNSAFE, seed=0)
    assert found.value == 1.0
    assert found.high == 1.0
    assert found.low < 1.0


def test_length_sees_a_label_that_goes_with_middling_lengths():
    texts = ["x" * (50 if unsafe else (5, 500)[i % 4 // 2]) for i, unsafe in enumerate(UNSAFE)]
    assert measure_length_auc(texts, UNSAFE, seed=0).value == 1.0


def test_words_that_separate_are_perfect():
    texts = [f"please {'knit' if unsafe else 'cook'} number{i % 7}" for i, unsafe in enumerate(UNSAFE)]
    assert measure_words_auc(texts, UNSAFE, seed=0).value == 1.0


def test_words_see_pairs_of_words():
    """Each single word is as frequent under either label; only the pair tells: "a x", "b y" against "a y", "b x"."""
    pairs = {True: ("a x", "b y"), False: ("a y", "b x")}
    texts = [pairs[bool(unsafe)][i // 2 % 2] for i, unsafe in enumerate(UNSAFE)]
    assert measure_words_auc(texts, UNSAFE, seed=0).value == 1.0


def test_a_source_that_is_the_label_is_perfect():
    assert measure_group_auc(["bad" if unsafe else "good" for unsafe in UNSAFE], UNSAFE, seed=0).value == 1.0


def test_the_auc_of_a_source_by_hand():
    """Unsafe prompts come from A only, half of the safe ones from A, half from B.

    An unsafe prompt beats a safe one from B and ties with one from A: AUC = 1/2 + 1/2 x 1/2 = 0.75 in every fold with
    as many safe prompts of A as of B, and nearly so in the others.
    """
    sources = ["A" if unsafe else "AB"[i // 2 % 2] for i, unsafe in enumerate(UNSAFE)]
    assert measure_group_auc(sources, UNSAFE, seed=0).value == pytest.approx(0.75, abs=0.01)


def test_states_that_separate_are_perfect_and_turn_without_effect():
    rng = np.random.default_rng(3)
    states = rng.normal(size=(N, 300))
    assert measure_states_auc(states + 30 * UNSAFE[:, np.newaxis], UNSAFE, seed=0).value == 1.0
    partly = states + 0.2 * UNSAFE[:, np.newaxis]
    turned = 7.0 * partly @ np.linalg.qr(rng.normal(size=(300, 300)))[0] + 5.0
    found = measure_states_auc(partly, UNSAFE, seed=0).value
    assert 0.6 < found < 1.0
    assert measure_states_auc(turned, UNSAFE, seed=0).value == pytest.approx(found, abs=1e-3)


@pytest.mark.parametrize(
    ("probe", "made"),
    [
        (measure_words_auc, random_texts),
        (measure_length_auc, random_texts),
        (measure_group_auc, lambda rng: rng.choice(["a", "b", "c"], size=N).tolist()),
        (measure_states_auc, lambda rng: rng.normal(size=(N, 16))),
        (measure_states_auc, lambda rng: rng.normal(size=(N, 2 * N))),
    ],
)
def test_random_labels_give_chance(probe, made):
    """The AUC of 64 + 64 random scores has SD sqrt((n + 1) / (12 n_safe n_unsafe)) = .051; five draws: .023."""
    found = [probe(made(np.random.default_rng(100 + draw)), random_labels(draw), seed=draw).value for draw in range(5)]
    assert np.mean(found) == pytest.approx(0.5, abs=3 * 0.023)


@pytest.mark.parametrize(
    ("measure", "reason"),
    [
        (lambda: measure_length_auc(["four"] * N, UNSAFE, 0), "all prompts have 4 characters and 1 words"),
        (lambda: measure_words_auc(["?!"] * N, UNSAFE, 0), "no prompt holds a word"),
        (lambda: measure_words_auc([f"w{i}" for i in range(N)], UNSAFE, 0), "no two prompts share a word"),
        (lambda: measure_group_auc(["s"] * N, UNSAFE, 0), "every prompt is of 's'"),
        (lambda: measure_states_auc(np.eye(N), np.arange(N) < 3, 0), r"3 unsafe prompt\(s\)"),
    ],
)
def test_what_cannot_be_probed_is_undefined_with_its_reason(measure, reason):
    with pytest.raises(UndefinedScore, match=reason):
        measure()


def test_the_interval_solves_its_equation_and_is_symmetric():
    found = auc_interval(0.8, 64, 100)
    z = norm.ppf(0.975)
    for end in (found.low, found.high):
        assert abs(0.8 - end) == pytest.approx(z * np.sqrt(auc_variance(end, 64, 100)), rel=1e-6)
    mirrored = auc_interval(0.2, 64, 100)
    assert (mirrored.low, mirrored.high) == (pytest.approx(1 - found.high), pytest.approx(1 - found.low))


def test_the_variance_by_hand():
    """At 0.5 Hanley and McNeil give 1/4 (1 + (m + n - 2) / 3) / (m n) = (m + n + 1) / (12 m n), Mann-Whitney's own."""
    assert auc_variance(0.5, 30, 50) == pytest.approx(81 / (12 * 30 * 50))


def test_the_interval_covers():
    """Normal scores 1 SD apart: AUC = Phi(1 / sqrt 2) = .7602. 1,000 draws: 95 % +- 2 x .7 %."""
    from sklearn.metrics import roc_auc_score

    truth, rng = norm.cdf(1 / np.sqrt(2)), np.random.default_rng(5)
    draws = rng.normal(size=(1000, N)) + UNSAFE
    found = [auc_interval(float(roc_auc_score(UNSAFE, scores)), N // 2, N // 2) for scores in draws]
    assert np.mean([one.low <= truth <= one.high for one in found]) == pytest.approx(0.95, abs=0.02)
