"""Which layers, how they are normalised, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.evaluate.metric.indices import UndefinedScore
from jobs.evaluate.metric.representation import (
    Representation,
    average_layers,
    describe_representation,
    embed_pair,
    require_finite,
    select_layers,
)
from pipeline_common.diagnostic_measures import LearnedWeights
from pipeline_common.errors import ConfigError, InputError


@pytest.mark.parametrize(
    ("mode", "n_layers", "expected"),
    [
        ("band", 4, (2, 3)),  # 2/4 = .5, 3/4 = .75
        ("band", 5, (2, 3, 4)),  # .4 and .8 are inside
        ("band", 15, (6, 7, 8, 9, 10, 11, 12)),
        ("band", 32, tuple(range(13, 26))),  # 12.8 ... 25.6
        ("band", 1, (1,)),
        ("band", 2, (1,)),
        ("all", 3, (1, 2, 3)),
        ("learned", 3, (1, 2, 3)),  # to choose from: never the embeddings
        (0, 3, (0,)),
        (3, 3, (3,)),
    ],
)
def test_selected_layers(mode, n_layers, expected):
    assert select_layers(mode, n_layers) == expected


def test_a_band_between_two_layers_is_the_one_nearest_its_middle():
    assert select_layers("band", 10, (0.61, 0.64)) == (6,)  # the middle is 6.25
    assert select_layers("band", 10, (0.66, 0.69)) == (7,)  # 6.75


@pytest.mark.parametrize("layer", [-1, 4])
def test_a_layer_that_does_not_exist_is_refused(layer):
    with pytest.raises(ConfigError, match=r"layers 0 \(embeddings\) to 3"):
        select_layers(layer, 3)


def test_the_description_names_the_layers():
    assert describe_representation(average_layers((2, 3)), 4, None).startswith("uniform mean of layers 2-3 of 4; each")
    assert describe_representation(average_layers((2,)), 4, None).startswith("layer 2 of 4; each")


def test_the_description_names_weights_and_components():
    learned = LearnedWeights(n_safe=64, n_unsafe=65, layers=())
    words = describe_representation(Representation((2, 5), (0.75, 0.25), np.eye(9)[:, :3], 0.876), 6, learned)
    assert words == (
        "mean of layers 1-6 weighted by a sparsemax that was learned on 64 safe and 65 unsafe prompts of the base "
        "model, none of which is scored: layer 2 (0.75), 5 (0.25); each layer centred and scaled by the base model's "
        "mean and spread; both models projected on the base model's first 3 principal components (87.6% of its "
        "variance)"
    )


def test_every_layer_weighs_the_same_and_both_models_share_the_base_s_scale():
    rng = np.random.default_rng(0)
    base = rng.standard_normal((40, 3, 6)).astype(np.float32)
    base[:, 2] = base[:, 2] * 1000 + 5e3  # late layers are larger
    tuned = base * np.float32(2.0)
    for layer in (1, 2):
        in_base, in_tuned = embed_pair(base, tuned, average_layers((layer,)))
        assert np.mean(np.sum(in_base.values**2, axis=1)) == pytest.approx(1.0, rel=1e-6)
        spread = in_tuned.values - in_tuned.values.mean(axis=0)
        assert np.mean(np.sum(spread**2, axis=1)) == pytest.approx(4.0, rel=1e-3)
    both = embed_pair(base, tuned, average_layers((1, 2)))[0].values
    alone = [embed_pair(base, tuned, average_layers((layer,)))[0].values for layer in (1, 2)]
    np.testing.assert_allclose(both, (alone[0] + alone[1]) / 2)
    weighted = embed_pair(base, tuned, Representation((1, 2), (0.75, 0.25)))[0].values
    np.testing.assert_allclose(weighted, 0.75 * alone[0] + 0.25 * alone[1])


def test_rounding_is_a_millionth_of_the_norm_in_the_unit_of_the_spread():
    # Layer 1: 3 +- 1, norm sqrt(9 + 1), spread 1. Layer 2: +- 10, norm and spread 10.
    turns = np.tile([1.0, -1.0], 10)
    base = np.stack([np.zeros(20), 3.0 + turns, 10.0 * turns], axis=1)[:, :, np.newaxis].astype(np.float32)
    rounding = [embed_pair(base, 2 * base, average_layers(layers)) for layers in ((1,), (2,), (1, 2))]
    one, two, both = ([role.rounding for role in pair] for pair in rounding)
    assert one == pytest.approx([1e-6 * np.sqrt(10), 2e-6 * np.sqrt(10)])
    assert two == pytest.approx([1e-6, 2e-6])
    assert both == pytest.approx([(a + b) / 2 for a, b in zip(one, two, strict=True)])


@pytest.mark.parametrize("value", [0.0, 0.1234567])
def test_a_layer_equal_for_all_prompts_is_undefined(value):
    base = np.random.default_rng(0).standard_normal((10, 2, 4)).astype(np.float32)
    base[:, 0] = value
    with pytest.raises(UndefinedScore, match="layer 0 is the same for every prompt"):
        embed_pair(base, base, average_layers((0,)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_is_named_by_model_prompt_and_layer(bad):
    activations = np.zeros((4, 3, 5), dtype=np.float32)
    activations[2, 1, 4] = bad
    with pytest.raises(InputError, match=r"tuned activations: .* prompt 2 \(p-c\), layer 1 \(1 of 12"):
        require_finite(activations, ["p-a", "p-b", "p-c", "p-d"], "tuned")
