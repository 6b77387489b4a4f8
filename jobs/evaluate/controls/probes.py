"""How well safe and unsafe prompts are told apart by something simple: cross-validated AUC of small classifiers.

AUC is the chance that an unsafe prompt scores above a safe one; range [0, 1], 0.5 = chance, 1 = perfect. Every probe
sees the same folds, so their AUCs compare. All work comes from scikit-learn; nothing here depends on the global seed.
Legend: n prompts, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures, StandardScaler

from jobs.evaluate.metric.indices import Bools, Floats, UndefinedScore
from pipeline_common.measures import Estimate

FOLDS: Final = 5
WORD: Final = r"(?u)\b\w+\b"
LEVEL: Final = 0.95
MAX_ITERATIONS: Final = 2000
WORD_WEIGHT: Final = 100.0
"""Inverse regularisation of the words' probe: the best of 1, 10, 100 on the sample prompts, to be a strong control."""


def measure_words_auc(texts: Sequence[str], unsafe: Bools, seed: int) -> Estimate:
    """AUC of a probe on TF-IDF weights of the prompts' words and pairs of words.

    Args:
        texts: the prompts [n].
        unsafe: labels [n].
        seed: of the folds.

    Raises:
        UndefinedScore: too few prompts of a label, or no two prompts share a word.
    """
    # Counted once, weighted per fold. A word of one prompt alone can tell nothing about another prompt.
    vectorizer = CountVectorizer(token_pattern=WORD, ngram_range=(1, 2))
    if not any(map(vectorizer.build_analyzer(), texts)):
        raise UndefinedScore("no prompt holds a word")
    counts = vectorizer.fit_transform(texts)
    shared = np.flatnonzero(np.diff(counts.tocsc().indptr) >= 2)
    if not shared.size:
        raise UndefinedScore("no two prompts share a word")
    model = make_pipeline(
        TfidfTransformer(sublinear_tf=True), LogisticRegression(C=WORD_WEIGHT, max_iter=MAX_ITERATIONS)
    )
    return cross_validate_auc(model, counts[:, shared], unsafe, seed)


def measure_length_auc(texts: Sequence[str], unsafe: Bools, seed: int) -> Estimate:
    """AUC of a probe on the prompts' lengths: logarithms of characters and of words, with their squares.

    The squares let it see a label that goes with middling lengths.

    Raises:
        UndefinedScore: too few prompts of a label, or all prompts are of one length.
    """
    lengths = np.log1p([[len(text), len(text.split())] for text in texts])
    if not np.ptp(lengths, axis=0).any():
        raise UndefinedScore(f"all prompts have {len(texts[0])} characters and {len(texts[0].split())} words")
    model = make_pipeline(
        StandardScaler(),
        PolynomialFeatures(2, include_bias=False),
        LogisticRegression(C=WORD_WEIGHT, max_iter=MAX_ITERATIONS),
    )
    return cross_validate_auc(model, lengths, unsafe, seed)


def measure_group_auc(groups: Sequence[str], unsafe: Bools, seed: int) -> Estimate:
    """AUC of a probe that knows nothing of a prompt but the group it belongs to (its source, its axiom).

    Where both labels are spread evenly over the groups it falls below 0.5 (0.39 with 7 axioms, 256 + 256 prompts): what
    the fitted prompts have a little more of, the held-out ones have less of. There is nothing to learn then. Folds
    that keep the groups' shares would hide that, but find 0.56 in labels drawn at random, so they are not used.

    Raises:
        UndefinedScore: too few prompts of a label, or there is one group only.
    """
    if len(set(groups)) < 2:
        raise UndefinedScore(f"every prompt is of {groups[0]!r}")
    model = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression(max_iter=MAX_ITERATIONS))
    return cross_validate_auc(model, np.asarray(groups, dtype=np.str_)[:, np.newaxis], unsafe, seed)


def measure_states_auc(states: Floats, unsafe: Bools, seed: int) -> Estimate:
    """AUC of a linear probe on hidden states.

    The probe and its penalty do not change under rotation; one common scale makes the mean squared entry 1, so that the
    penalty means the same whatever the unit of the states.

    Args:
        states: one row per prompt [n, D], finite, not all equal.
        unsafe: labels [n].
        seed: of the folds.

    Raises:
        UndefinedScore: too few prompts of a label.
    """
    centred = states - states.mean(axis=0)
    scaled = centred / np.sqrt(np.mean(centred**2))
    return cross_validate_auc(LogisticRegression(max_iter=MAX_ITERATIONS), scaled, unsafe, seed)


def cross_validate_auc(model: Any, features: Any, unsafe: Bools, seed: int) -> Estimate:
    """Mean AUC over stratified folds, each scored by a model fitted on the others, with `auc_interval`.

    Scores of different folds are never ranked together: their models differ, which pulls a pooled AUC below 0.5 where
    there is nothing to find.

    Args:
        model: a scikit-learn classifier with a decision function.
        features: one row per prompt, an array or a sparse matrix [n, D], in an order of the rows that does not depend
            on how the prompts came.
        unsafe: labels [n].
        seed: of the folds.

    Raises:
        UndefinedScore: fewer prompts of a label than folds.
    """
    n_unsafe = int(np.count_nonzero(unsafe))
    n_safe = int(unsafe.size) - n_unsafe
    for name, count in (("safe", n_safe), ("unsafe", n_unsafe)):
        if count < FOLDS:
            raise UndefinedScore(f"{count} {name} prompt(s): {FOLDS} folds need at least one each")
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    scores = cross_val_score(model, features, unsafe, cv=folds, scoring="roc_auc", error_score="raise")
    return auc_interval(float(np.mean(scores)), n_safe, n_unsafe)


def auc_interval(auc: float, n_safe: int, n_unsafe: int) -> Estimate:
    """An AUC with its two-sided 95 % interval, by Newcombe's method 5 (Statistics in Medicine 2006, 25:559).

    The limits solve |auc - theta| = z sqrt(V(theta)) with Hanley and McNeil's variance (Radiology 1982, 143:29), both
    groups' sizes replaced by their mean in its numerator. Unlike intervals of the form auc +- z se it has a width at
    0 and 1 and stays inside [0, 1]. It leaves out that the folds' models share training prompts.

    Args:
        auc: in [0, 1].
        n_safe: prompts labelled safe, > 0.
        n_unsafe: prompts labelled unsafe, > 0.
    """
    low = _lower_limit(auc, n_safe, n_unsafe)
    high = 1.0 - _lower_limit(1.0 - auc, n_safe, n_unsafe)  # the variance is symmetric about 0.5
    return Estimate(value=auc, low=low, high=high)


def auc_variance(theta: float, n_safe: int, n_unsafe: int) -> float:
    """Hanley and McNeil's variance of an AUC whose true value is `theta`, with the mean of both groups' sizes."""
    others = (n_safe + n_unsafe) / 2 - 1
    shape = 1 + others * ((1 - theta) / (2 - theta) + theta / (1 + theta))
    return theta * (1 - theta) * shape / (n_safe * n_unsafe)


def _lower_limit(auc: float, n_safe: int, n_unsafe: int) -> float:
    if auc <= 0:
        return 0.0
    z = norm.ppf((1 + LEVEL) / 2)
    # At auc = 1 the end itself solves the equation, too, and is not the limit meant.
    end = min(auc, 1 - 1e-9)
    return float(brentq(lambda theta: auc - theta - z * np.sqrt(auc_variance(theta, n_safe, n_unsafe)), 0.0, end))
