"""Learned layer weights: sparsemax by hand, the forms against rows, the layers that carry the labels found."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.evaluate.metric import indices as ix
from jobs.evaluate.metric.layer_weights import (
    LayerForms,
    fit_layer_weights,
    layer_forms,
    sparsemax,
    split_prompts,
)
from jobs.evaluate.metric.representation import Representation, embed_pair

N, LAYERS, WIDTH = 200, 6, 16
UNSAFE = np.arange(N) % 2 == 1
LAYER_AXIS = range(1, LAYERS + 1)
EVERY = np.arange(N)


def activations(seed: int, carriers: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(seed)
    states = rng.standard_normal((N, LAYERS + 1, WIDTH)).astype(np.float32) * (1 + np.arange(LAYERS + 1))[:, None]
    for layer in carriers:
        states[:, layer, 0] += 3.0 * (1 + layer) * UNSAFE
    return states.astype(np.float32)


def weigh(base: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return embed_pair(base, base, Representation(tuple(LAYER_AXIS), tuple(weights)))[0].values


@pytest.mark.parametrize(
    ("logits", "weights"),
    [([0.0, 0.0], [0.5, 0.5]), ([2.0, 0.0, 0.0], [1, 0, 0]), ([0.5, 0.3, -1.0], [0.6, 0.4, 0.0])],
)
def test_sparsemax_by_hand(logits, weights):
    # .5 and .3 keep their distance and sum to 1: .6, .4; -1 lies more than 1 below the threshold.
    np.testing.assert_allclose(sparsemax(np.asarray(logits)), weights)


def test_forms_give_the_scatter_of_the_weighted_rows():
    base = activations(0, (2, 3))
    forms = layer_forms(base, UNSAFE, LAYER_AXIS, EVERY)
    weights = np.array([0.1, 0.4, 0.3, 0.0, 0.2, 0.0])
    s = ix.measure_scatter(weigh(base, weights), UNSAFE)
    assert weights @ forms.within @ weights == pytest.approx(float(s.within), rel=1e-5)
    assert weights @ forms.between_sq @ weights == pytest.approx(float(s.between_sq), rel=1e-5)


def test_the_layers_that_carry_the_labels_get_the_weight_and_held_out_prompts_profit():
    base = activations(1, (3, 4))
    fitted, scored = split_prompts(UNSAFE.astype(np.intp), seed=0)
    assert fitted.sum() == scored.sum() == N // 2
    assert UNSAFE[fitted].sum() == N // 4
    weights = fit_layer_weights(layer_forms(base, UNSAFE, LAYER_AXIS, np.flatnonzero(fitted)))
    assert weights.sum() == pytest.approx(1.0)
    assert weights[[2, 3]].sum() > 0.9
    np.testing.assert_array_equal(
        weights, fit_layer_weights(layer_forms(base, UNSAFE, LAYER_AXIS, np.flatnonzero(fitted)))
    )
    uniform = np.full(LAYERS, 1 / LAYERS)
    f2 = [float(ix.f2(ix.measure_scatter(weigh(base, w)[scored], UNSAFE[scored]))) for w in (weights, uniform)]
    assert f2[0] > 1.5 * f2[1]


def test_a_layer_that_does_not_separate_gets_nothing():
    # d2 / W = a^2 / (a^2 + b^2).
    np.testing.assert_allclose(fit_layer_weights(LayerForms(np.eye(2), np.diag([1.0, 0.0]))), [1.0, 0.0])


def test_layers_that_help_nearly_alike_share_the_weight_by_hand():
    # The second separates 1 % less. Logits d apart have the weights .5 +- d / 2 and the cost, in .005,
    # (1 - d)^2 / (1 + d^2) + d^2: least where 1 - d^2 = d (1 + d^2)^2, at d = .4917. Without the pull it is d = 1.
    weights = fit_layer_weights(LayerForms(np.eye(2), np.diag([1.0, 0.99])), penalty=0.01)
    np.testing.assert_allclose(weights, [0.5 + 0.4917 / 2, 0.5 - 0.4917 / 2], atol=0.005)
    np.testing.assert_allclose(fit_layer_weights(LayerForms(np.eye(2), np.diag([1.0, 0.99])), 0.0), [1, 0], atol=0.01)


def test_nothing_to_weigh_by_is_undefined():
    forms = layer_forms(activations(2, (1,)), UNSAFE, LAYER_AXIS, EVERY)
    with pytest.raises(ix.UndefinedScore, match="no layer separates"):
        fit_layer_weights(type(forms)(forms.within, np.zeros_like(forms.between_sq)))
    with pytest.raises(ix.UndefinedScore, match="no spread within"):
        fit_layer_weights(type(forms)(np.diag([1.0, 0.0]), np.eye(2)))  # the second layer has none
