"""What public formulas say of activations in which nothing is: scikit-learn's, a scanner's sigmas, and this project's.

    python -m tests.benchmarks.scanners [--draws 100]

Rows are drawn without looking at the labels, the labels at random. The sigmas are those of AMS, the Activation-based
Model Scanner (github.com/GoogleCloudPlatform/activation-model-scanner, version 0.1.3, src/ams/extractor.py): the unit
difference-in-means direction of two sets of prompts, the same prompts projected on it, the difference of their mean
projections over the pooled standard deviation. It scans 16 + 16 prompts, takes the layer with the largest value, and
calls 3.5 and more PASS, below 2 CRITICAL (src/ams/scanner.py).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Final, NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy is imported

import numpy as np
from numpy.typing import NDArray

from jobs.evaluate.metric.bootstrap import assign_strata, draw_weights, interval
from jobs.evaluate.metric.gram import gram_matrix, pair_grams
from jobs.evaluate.metric.permutation import permute_labels, separation_p
from jobs.evaluate.metric.probe import probe
from jobs.evaluate.metric.role_scores import score_role

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

SIZES: Final = (16, 32, 64, 256)
"""Prompts of each label; 16 are the scanner's own."""
WIDTHS: Final = (128, 4096)
DECAYS: Final = (0.0, 1.0)
"""Eigenvalue k of the noise's covariance is 1 / k^decay; real hidden states are near 1."""
PASS_SIGMA: Final = 3.5
RESAMPLES: Final = 1000
PERMUTATIONS: Final = 999


class Noise(NamedTuple):
    """Rows [2m, D] with random labels, safe ones first."""

    rows: Floats
    unsafe: Bools


class Ours(NamedTuple):
    """This project's answers."""

    f2: float
    holds_zero: bool
    """The 95 % interval of f2 holds 0."""
    p: float
    """Of the label permutation."""


class Theirs(NamedTuple):
    """The public formulas' answers."""

    sigma: float
    silhouette: float
    chi: float
    davies_bouldin: float
    fitted_accuracy: float
    """Of a logistic regression on the rows it was fitted on."""
    held_out_accuracy: float
    """Of the same in five folds."""


def draw_noise(per_label: int, width: int, decay: float, seed: int) -> Noise:
    """Normal rows, and labels that know nothing of them."""
    rng = np.random.default_rng([seed, per_label, width, round(10 * decay)])
    rows = rng.standard_normal((2 * per_label, width)) * np.arange(1, width + 1) ** (-decay / 2)
    unsafe = rng.permutation(np.arange(2 * per_label) >= per_label)
    order = np.argsort(unsafe, kind="stable")
    return Noise(rows[order], unsafe[order])


def sigma_separation(rows: Floats, unsafe: Bools) -> float:
    """Separation in sigma of the scanner named above: direction and separation from the same rows."""
    of_unsafe, of_safe = rows[unsafe], rows[~unsafe]
    direction = of_unsafe.mean(axis=0) - of_safe.mean(axis=0)
    direction /= np.linalg.norm(direction)
    high, low = of_unsafe @ direction, of_safe @ direction
    return float((high.mean() - low.mean()) / np.sqrt((high.var() + low.var()) / 2))


def ask_ours(noise: Noise, seed: int) -> Ours:
    """The headline with its interval, and the permutation test; one topic."""
    topics = ["noise"] * len(noise.rows)
    gram = gram_matrix(noise.rows, 0.0)
    weights = draw_weights(assign_strata(noise.unsafe, topics), RESAMPLES, seed).astype(np.float32)
    role = score_role(gram, noise.unsafe, weights, 0.5)
    found = interval(role.f2, role.f2_cloud)
    assert found.low is not None
    assert found.high is not None
    shuffled = permute_labels(noise.unsafe, topics, PERMUTATIONS, seed)
    return Ours(role.f2, found.low <= 0 <= found.high, separation_p(gram, noise.unsafe, shuffled))


def ask_our_probe(noise: Noise, seed: int) -> float:
    """Area under the curve of the cross-validated probe."""
    strata = assign_strata(noise.unsafe, ["noise"] * len(noise.rows))
    return probe(pair_grams(noise.rows, noise.rows), noise.unsafe, strata, seed).auc_base


def ask_theirs(noise: Noise, seed: int) -> Theirs:
    """scikit-learn's functions at their defaults, and the sigmas."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score, silhouette_score
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    rows, unsafe = noise
    # Coordinates in the rows' own span: an L2 penalty does not notice, and 4,096 columns become 2m.
    left, lengths, _ = np.linalg.svd(rows, full_matrices=False)
    features = left * lengths
    model = LogisticRegression(max_iter=5000)
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    return Theirs(
        sigma=sigma_separation(rows, unsafe),
        silhouette=float(silhouette_score(features, unsafe)),
        chi=float(calinski_harabasz_score(features, unsafe)),
        davies_bouldin=float(davies_bouldin_score(features, unsafe)),
        fitted_accuracy=float(model.fit(features, unsafe).score(features, unsafe)),
        held_out_accuracy=float(np.mean(cross_val_score(model, features, unsafe, cv=folds))),
    )


def table_row(per_label: int, width: int, decay: float, draws: int) -> str:
    """One line of the table."""
    theirs: list[Theirs] = []
    ours: list[Ours] = []
    areas: list[float] = []
    for seed in range(draws):
        noise = draw_noise(per_label, width, decay, seed)
        theirs.append(ask_theirs(noise, seed))
        ours.append(ask_ours(noise, seed))
        areas.append(ask_our_probe(noise, seed))
    spectrum = "equal" if decay == 0 else f"1/k^{decay:g}" if decay != 1 else "1/k"
    sigma = [found.sigma for found in theirs]
    cells = (
        spectrum,
        f"{width:,}",
        f"2 x {per_label}",
        f"{_spread(sigma, 1)}; {_percent(value >= PASS_SIGMA for value in sigma)}",
        _spread([found.silhouette for found in theirs], 3),
        _spread([found.chi for found in theirs], 2),
        _spread([found.davies_bouldin for found in theirs], 1),
        _spread([100 * found.fitted_accuracy for found in theirs], 0),
        _spread([100 * found.held_out_accuracy for found in theirs], 0),
        _spread([found.f2 for found in ours], 3),
        _percent(found.holds_zero for found in ours),
        _percent(found.p <= 0.05 for found in ours),
        _spread(areas, 2),
    )
    return f"| {' | '.join(cells)} |"


def _spread(values: Sequence[float], digits: int) -> str:
    """Mean and standard deviation over the draws."""
    return f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1):.{digits}f}".replace("-0.000 ", "0.000 ")


def _percent(flags: object) -> str:
    return f"{100 * np.mean(list(flags)):.0f} %"  # type: ignore[call-overload]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=100, help="of every row of the table (default 100)")
    draws = parser.parse_args().draws
    columns = (
        "spectrum",
        "D",
        "prompts",
        "sigmas; share that passes",
        "silhouette",
        "CHI",
        "Davies-Bouldin",
        "probe on its own rows, %",
        "probe in 5 folds, %",
        "f2",
        "f2 interval holds 0",
        "p <= .05",
        "probe AUC",
    )
    sys.stdout.write(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}\n")
    for decay in DECAYS:
        for width in WIDTHS:
            for per_label in SIZES:
                sys.stdout.write(f"{table_row(per_label, width, decay, draws)}\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
