"""Learned layer weights: which layers of the base tell unsafe from safe, fitted once on prompts that are not scored.

Legend: N prompts, L layers, D width. The weights are a sparsemax of L logits, as in the paper (arXiv 2506.13901): they
sum to 1 and are exactly 0 for layers that do not help. They are fitted on one half of the base's prompts, frozen, and
both models are scored on the other half, so that the choice of layers cannot flatter the base. A weighted mean of
layers has the Gram matrix sum_lm w_l w_m G_lm, so W and d2 are quadratic forms in the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from jobs.evaluate.metric.bootstrap import Ints
from jobs.evaluate.metric.indices import Bools, Floats, UndefinedScore, count_labels, require_spread
from jobs.evaluate.metric.probe import assign_folds
from jobs.evaluate.metric.representation import Activations, fit_layer_scaling

PENALTY: Final = 0.01
"""Pull towards uniform weights, in units of log f2 per squared logit: layers that help alike share the weight."""

LEAST_SHARE: Final = 0.1
"""Of the uniform weight: a smaller one is what the search left over, and becomes 0."""


@dataclass(frozen=True)
class LayerForms:
    """W and d2 of every weighted mean of layers: w' `within` w and w' `between_sq` w."""

    within: Floats
    """[L, L]."""
    between_sq: Floats
    """[L, L]."""


def split_prompts(strata: Ints, seed: int) -> tuple[Bools, Bools]:
    """Halve the prompts, stratum by stratum: (fitted on, scored) masks [N]."""
    fitted = assign_folds(strata, 2, seed) == 0
    return fitted, ~fitted


def sparsemax(logits: Floats) -> Floats:
    """The point of the simplex nearest to `logits` [L] (Martins & Astudillo 2016, arXiv 1602.02068).

    Returns:
        Weights [L], >= 0 and summing to 1; exactly 0 for logits well below the largest.
    """
    ordered = np.sort(logits)[::-1]
    surplus = np.cumsum(ordered) - 1.0
    ranks = np.arange(1, logits.size + 1)
    support = int(np.count_nonzero(ordered * ranks > surplus))
    return np.asarray(np.maximum(logits - surplus[support - 1] / support, 0.0))


def layer_forms(base: Activations, unsafe: Bools, layers: Sequence[int], rows: NDArray[np.intp]) -> LayerForms:
    """Measure the forms on some prompts of the base, each layer normalised as the scored representation is.

    Args:
        base: [N, L + 1, D], finite.
        unsafe: labels [N].
        layers: entries of the layer axis, without the embeddings where these are constant.
        rows: prompts to use.

    Raises:
        UndefinedScore: a constant layer, or fewer than two rows in a group.
    """
    labels = unsafe[rows]
    counts = count_labels(labels)
    deviations = np.empty((len(layers), rows.size * base.shape[2]), dtype=np.float32)
    shifts = np.empty((len(layers), base.shape[2]))
    for place, layer in enumerate(layers):
        states = base[rows, layer]
        scaling = fit_layer_scaling(states, layer)
        values = (states - scaling.centre) / scaling.scale
        means = [values[mask].sum(axis=0) / count for mask, count in zip((~labels, labels), counts, strict=True)]
        shifts[place] = means[1] - means[0]
        values -= np.where(labels[:, np.newaxis], means[1], means[0])
        deviations[place] = values.ravel()
    return LayerForms((deviations @ deviations.T).astype(np.float64), shifts @ shifts.T)


def fit_layer_weights(forms: LayerForms, penalty: float = PENALTY) -> Floats:
    """Find the weights with the largest d2 / W.

    Deterministic: starts from uniform weights, follows the logits by Powell's derivative-free method (sparsemax has
    corners) and keeps the uniform weights if nothing is better.

    Args:
        forms: of the fitting prompts.
        penalty: pull towards uniform weights, >= 0.

    Returns:
        Weights [L], >= 0, summing to 1.

    Raises:
        UndefinedScore: if no layer separates the labels or spreads within them.
    """
    n_layers = len(forms.within)
    require_spread(float(np.diagonal(forms.within).min()), 1, 0.0)
    if not np.diagonal(forms.between_sq).max() > 0:
        raise UndefinedScore("no layer separates the labels: there is nothing to weigh by")

    def cost(logits: Floats) -> float:
        weights = sparsemax(logits)
        ratio = float(weights @ forms.between_sq @ weights) / float(weights @ forms.within @ weights)
        return -float(np.log(max(ratio, np.finfo(float).tiny))) + penalty * float(np.sum((logits - logits.mean()) ** 2))

    start = np.full(n_layers, 1.0 / n_layers)
    found = minimize(cost, start, method="Powell", options={"maxiter": 20, "xtol": 1e-3, "ftol": 1e-6})
    weights = sparsemax(np.asarray(found.x) if found.fun < cost(start) else start)
    kept = np.where(weights < LEAST_SHARE / n_layers, 0.0, weights)
    return np.asarray(kept / kept.sum())
