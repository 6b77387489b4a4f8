"""Fit the ruler: on the base alone, once, before any score; then both models are measured with it.

Legend: N prompts, L layers, D width, k components.

What may be fitted is which layers count (learned weights need labels, so they are learned on prompts that are not
scored afterwards) and which directions count (principal components need no labels, so the scored prompts may give
them: relabelling the prompts would give the same ones).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from jobs.evaluate.metric.bootstrap import Ints, assign_strata, label_order
from jobs.evaluate.metric.indices import ROUNDING, Bools, Floats
from jobs.evaluate.metric.layer_weights import fit_layer_weights, layer_forms, split_prompts
from jobs.evaluate.metric.representation import (
    BAND,
    Activations,
    LayerMode,
    Representation,
    average_layers,
    embed_pair,
    fit_layer_scaling,
    select_layers,
)
from pipeline_common.config import MIN_PER_CLASS
from pipeline_common.diagnostic_measures import LayerWeight, LearnedWeights
from pipeline_common.errors import ConfigError, InputError


@dataclass(frozen=True)
class Ruler:
    """A fitted representation and the prompts that may be scored with it."""

    representation: Representation
    scored: Bools
    """[N]; False for the prompts that layer weights were learned on."""
    learned: LearnedWeights | None
    """None where nothing was learned from labels."""


def fit_ruler(
    base: Activations,
    unsafe: Bools,
    axioms: Sequence[str],
    prompt_ids: Sequence[str],
    *,
    mode: LayerMode = "band",
    band: tuple[float, float] = BAND,
    components: int | None = None,
    seed: int = 0,
) -> Ruler:
    """Fit everything that both models are measured by.

    Args:
        base: pooled activations of the base [N, L + 1, D], finite, entry 0 the embeddings.
        unsafe: labels [N].
        axioms: topic of each prompt [N].
        prompt_ids: unique id of each prompt [N]; the result does not depend on the order of the prompts.
        mode: which layers (`select_layers`); "learned" weighs them and gives up half of the prompts for that.
        band: relative depth that "band" averages.
        components: k; None = all dimensions.
        seed: of the choice of that half.

    Raises:
        ConfigError: a layer that does not exist, or more components than the scored prompts span.
        InputError: the half to be scored has fewer than `MIN_PER_CLASS` prompts of a label.
        UndefinedScore: a scored layer is constant in the base, or no layer separates the labels.
    """
    layers = select_layers(mode, base.shape[1] - 1, band)
    order = label_order(unsafe, prompt_ids)
    scored, learned = np.ones(len(base), dtype=np.bool_), None
    if mode == "learned":
        representation, fitted = learn_layers(base, np.asarray(unsafe), axioms, layers, order, seed)
        scored[fitted] = False
        n_unsafe = int(np.count_nonzero(np.asarray(unsafe)[fitted]))
        weight_of = dict(zip(representation.layers, representation.weights, strict=True))
        learned = LearnedWeights(
            n_safe=fitted.size - n_unsafe,
            n_unsafe=n_unsafe,
            layers=tuple(LayerWeight(layer=layer, weight=weight_of.get(layer, 0.0)) for layer in layers),
        )
    else:
        representation = average_layers(layers)
    rows = order[scored[order]]
    for layer in representation.layers:
        fit_layer_scaling(base[rows, layer], layer)
    if components is not None:
        representation = choose_components(base, representation, rows, components)
    return Ruler(representation, scored, learned)


def learn_layers(
    base: Activations, unsafe: Bools, axioms: Sequence[str], layers: Sequence[int], order: Ints, seed: int
) -> tuple[Representation, Ints]:
    """Learn layer weights on half of the prompts, stratified by label and axiom.

    Args:
        base: [N, L + 1, D].
        unsafe: labels [N].
        axioms: topic of each prompt [N].
        layers: to choose from.
        order: all prompts in an order of their own (`label_order`).
        seed: of the half.

    Returns:
        The weighted mean of the layers that got a weight, and the prompts that it was learned on.

    Raises:
        InputError: too few prompts are left to be scored.
        UndefinedScore: as `layer_forms` and `fit_layer_weights`.
    """
    topics = [axioms[place] for place in order]
    fitted, left = split_prompts(assign_strata(unsafe[order], topics), seed)
    n_unsafe = int(np.count_nonzero(unsafe[order][left]))
    for label, count in (("safe", int(np.count_nonzero(left)) - n_unsafe), ("unsafe", n_unsafe)):
        if count < MIN_PER_CLASS:
            raise InputError(
                f"evaluate.layers=learned leaves {count} {label} prompts to be scored after half of them were used to "
                f"learn the layers' weights; expected at least {MIN_PER_CLASS}. Give at least {2 * MIN_PER_CLASS} "
                "prompts of each label, or choose other layers"
            )
    weights = fit_layer_weights(layer_forms(base, unsafe, layers, order[fitted]))
    chosen = [(layer, float(weight)) for layer, weight in zip(layers, weights, strict=True) if weight > 0]
    representation = Representation(tuple(layer for layer, _ in chosen), tuple(weight for _, weight in chosen))
    return representation, order[fitted]


def choose_components(base: Activations, representation: Representation, rows: Ints, components: int) -> Representation:
    """Restrict a representation to the base's leading principal components on the scored prompts.

    Args:
        base: [N, L + 1, D].
        representation: on all dimensions.
        rows: the scored prompts, n of them, in an order of their own.
        components: k >= 1.

    Raises:
        ConfigError: k is above min(n - 1, D), or above the number of components whose spread is more than rounding.
        UndefinedScore: a scored layer is constant in the base.
    """
    most = min(rows.size - 1, base.shape[2])
    if components > most:
        raise ConfigError(
            f"evaluate.pca_components={components}: {rows.size} scored prompts of width {base.shape[2]} have at most "
            f"{most} principal components; set it to at most {most}, or to null for all dimensions"
        )
    embedding = embed_pair(base, base, representation, rows)[0]
    axes, variances = principal_axes(embedding.values)
    floor = max(embedding.rounding**2, float(variances[0]) * ROUNDING**2)
    rank = int(np.count_nonzero(variances > floor))
    if components > rank:
        raise ConfigError(
            f"evaluate.pca_components={components}: the base's scored states spread along {rank} directions only, the "
            f"rest is rounding; set it to at most {rank}, or to null for all dimensions"
        )
    share = float(variances[:components].sum() / variances.sum())
    return replace(representation, axes=np.ascontiguousarray(axes[:, :components]), axes_variance=share)


def principal_axes(rows: Floats) -> tuple[Floats, Floats]:
    """All principal axes of `rows` [n, D], scikit-learn's, with the variance along each.

    Returns:
        Orthonormal columns [D, min(n, D)] and mean squared distances to the mean along them, in decreasing order.
    """
    from sklearn.decomposition import PCA

    n, width = rows.shape
    # Both are exact and without a random start; the covariance is the smaller problem for many short rows.
    found = PCA(svd_solver="covariance_eigh" if n >= width else "full").fit(rows)
    return found.components_.T, found.explained_variance_ * ((n - 1) / n)
