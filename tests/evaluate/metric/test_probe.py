"""The linear probe: its parts against scikit-learn, its answers on planted data."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, PredefinedSplit

from jobs.evaluate.metric.gram import pair_grams
from jobs.evaluate.metric.indices import UndefinedScore
from jobs.evaluate.metric.probe import area_under_curve, assign_folds, component_scores, probe

N = 200
UNSAFE = np.arange(N) >= N // 2
STRATA = UNSAFE * 3 + np.arange(N) % 3


def rows(seed: int, shift: float, width: int = 300, axis: int = 0) -> np.ndarray:
    found = np.random.default_rng(seed).standard_normal((N, width)) / np.sqrt(np.arange(1, width + 1))
    found[:, axis] += shift * UNSAFE
    return found


def test_area_under_curve_is_scikit_learns():
    rng = np.random.default_rng(0)
    for _ in range(10):
        positive, scores = rng.random(50) < 0.3, rng.integers(0, 12, 50).astype(float)
        assert area_under_curve(scores, positive) == pytest.approx(roc_auc_score(positive, scores))


def test_component_scores_are_those_of_pca_fitted_on_the_base():
    base, tuned = rows(1, 1.0), rows(2, 1.0)
    pca = PCA(5, svd_solver="full").fit(base)
    expected = pca.transform(base), pca.transform(tuned) - pca.transform(tuned).mean(axis=0)
    scale = np.sqrt(np.mean(np.sum(expected[0] ** 2, axis=1)))
    found = component_scores(pair_grams(base, tuned), 5)
    for ours, theirs in zip(found, expected, strict=True):
        sign = np.sign(np.sum(found[0] * expected[0], axis=0))
        np.testing.assert_allclose(ours * sign, theirs / scale, atol=1e-9)


def test_the_sign_of_a_component_is_that_of_its_largest_coordinate():
    base = component_scores(pair_grams(rows(1, 1.0), rows(2, 1.0)), 20)[0]
    largest = np.abs(base).argmax(axis=0)
    assert np.all(base[largest, np.arange(20)] > 0)


@pytest.mark.parametrize(
    ("small", "rounding", "kept"),
    [
        (3e-3, 1e-4, 2),
        (3e-3, 1e-2, 1),  # a spread that rounding alone may produce
        (1e-7, 0.0, 1),  # 1e-14 of the largest variance: float64's own rounding
    ],
)
def test_components_within_rounding_are_left_out(small, rounding, kept):
    turns = np.arange(40)
    points = np.stack([np.where(turns % 2, 1.0, -1.0), small * np.where(turns // 2 % 2, 1.0, -1.0)], axis=1)
    base, tuned = component_scores(pair_grams(points, points, rounding, rounding))
    assert base.shape == tuned.shape == (40, kept)  # and of 40 prompts no 64 components are asked for


def test_the_penalty_is_chosen_inside_each_training_part_as_scikit_learn_does():
    """Nested cross-validation written out: of 4 folds one is held out, the other three choose the penalty."""
    chosen = set()
    for seed, shift in ((0, 0.7), (1, 2.0), (2, 4.0), (3, 1.2)):
        base, tuned = rows(seed, shift), rows(seed + 50, shift / 2)
        pair, folds = pair_grams(base, tuned), assign_folds(STRATA, 4, seed=0)
        in_base, in_tuned = component_scores(pair)
        aucs = []
        for k in range(4):
            train, held_out = folds != k, folds == k
            search = GridSearchCV(
                LogisticRegression(solver="newton-cholesky", max_iter=200),
                {"C": [1.0, 100.0]},
                scoring="neg_log_loss",
                cv=PredefinedSplit(folds[train]),
            ).fit(in_base[train], UNSAFE[train])
            chosen.add(search.best_params_["C"])
            scores = [search.decision_function(states[held_out]) for states in (in_base, in_tuned)]
            aucs.append([roc_auc_score(UNSAFE[held_out], one) for one in scores])
        found = probe(pair, UNSAFE, STRATA, seed=0)
        assert (found.auc_base, found.auc_tuned) == pytest.approx(tuple(np.mean(aucs, axis=0)), abs=1e-9)
    assert chosen == {1.0, 100.0}


def test_folds_hold_equal_parts_of_every_stratum():
    folds = assign_folds(STRATA, 4, seed=1)
    for stratum in range(6):
        counts = np.bincount(folds[stratum == STRATA], minlength=4)
        assert counts.max() - counts.min() <= 1
    assert not np.array_equal(folds, assign_folds(STRATA, 4, seed=2))


def test_probe_on_planted_data():
    # Two unit normals d apart have AUC Phi(d / sqrt 2): .921 for d = 2.
    base = rows(3, 2.0)
    same = probe(pair_grams(base, base.copy()), UNSAFE, STRATA)
    assert same.auc_base == same.auc_tuned
    assert same.auc_base == pytest.approx(0.92, abs=0.05)
    assert probe(pair_grams(base, rows(4, 0.0)), UNSAFE, STRATA).auc_tuned == pytest.approx(0.5, abs=0.1)
    assert probe(pair_grams(base, rows(5, -2.0)), UNSAFE, STRATA).auc_tuned < 0.15  # reversed


def test_noise_is_not_separated_however_wide_it_is():
    found = [probe(pair_grams(x, x), UNSAFE, STRATA).auc_base for x in (rows(s, 0.0, 2000) for s in range(8))]
    assert np.mean(found) == pytest.approx(0.5, abs=0.05)


def test_undefined_says_why():
    for few in (5, 7):
        with pytest.raises(UndefinedScore, match=f"{few} prompts of a label"):
            probe(pair_grams(rows(0, 1.0), rows(0, 1.0)), np.arange(N) < few, STRATA)
    eight = np.arange(N) < 8  # two in every fold
    assert probe(pair_grams(rows(0, 1.0), rows(0, 1.0)), eight, eight.astype(np.intp)).auc_base >= 0
    with pytest.raises(UndefinedScore, match="no spread"):
        probe(pair_grams(np.ones((N, 3)), np.ones((N, 3))), UNSAFE, STRATA)
    with pytest.raises(UndefinedScore, match="one label"):
        area_under_curve(np.arange(3.0), np.ones(3, dtype=bool))
