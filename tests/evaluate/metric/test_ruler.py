"""What is fitted on the base before anything is scored: learned layer weights on half of the prompts, components."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import calinski_harabasz_score

from jobs.evaluate.metric.diagnostics import measure_pair
from jobs.evaluate.metric.geometry import score_geometry
from jobs.evaluate.metric.indices import UndefinedScore, f2, measure_scatter
from jobs.evaluate.metric.representation import average_layers, embed_pair
from jobs.evaluate.metric.ruler import fit_ruler, principal_axes
from pipeline_common.errors import ConfigError, InputError

N, LAYERS, WIDTH = 280, 5, 12
UNSAFE = np.arange(N) % 2 == 1
AXIOMS = [f"axiom {(i // 2) % 3}" for i in range(N)]
IDS = [f"prompt-{(i * 37) % N:03d}" for i in range(N)]


def activations(seed: int, separation: float = 0.0, layers: tuple[int, ...] = (), width: int = WIDTH) -> np.ndarray:
    """Noise of several sizes and directions, the labels in some layers; embeddings of a shared last token."""
    rng = np.random.default_rng(seed)
    states = rng.standard_normal((N, LAYERS + 1, width)) * np.linspace(0.5, 2.0, width)
    for layer in layers:
        states[:, layer, 0] += separation * UNSAFE
    states[:, 0] = 0.321
    return (states * np.arange(1, LAYERS + 2)[:, None]).astype(np.float32)


def fit(base: np.ndarray, **options):
    return fit_ruler(base, UNSAFE, AXIOMS, IDS, **options)


def score(base: np.ndarray, tuned: np.ndarray, ruler, **options):
    s = ruler.scored
    scores = score_geometry(
        base[s],
        tuned[s],
        UNSAFE[s],
        [a for a, one in zip(AXIOMS, s, strict=True) if one],
        [i for i, one in zip(IDS, s, strict=True) if one],
        representation=ruler.representation,
        resamples=200,
        **options,
    )
    return {(found.scope, found.name): found for found in scores}


def test_the_one_layer_that_separates_gets_the_weight():
    base = activations(1, 4.0, (4,))
    ruler = fit(base, mode="learned", seed=3)
    weights = dict(zip(ruler.representation.layers, ruler.representation.weights, strict=True))
    assert weights[4] > 0.9
    assert sum(weights.values()) == pytest.approx(1.0)
    # The embeddings, equal for all prompts, are not among those to choose from.
    assert [one.layer for one in ruler.learned.layers] == [1, 2, 3, 4, 5]
    assert {one.layer: one.weight for one in ruler.learned.layers if one.weight > 0} == weights
    uniform = score(base, base, fit(base, mode="all"))["overall", "pooled"].base.f2
    assert score(base, base, ruler)["overall", "pooled"].base.f2.low > uniform.high


def test_half_of_the_prompts_of_every_axiom_and_label_are_left_to_be_scored():
    ruler = fit(activations(1, 4.0, (4,)), mode="learned", seed=3)
    assert ruler.scored.sum() == N // 2
    assert (ruler.learned.n_safe, ruler.learned.n_unsafe) == (70, 70)
    topics = np.asarray(AXIOMS)
    for axiom in set(AXIOMS):
        for label in (False, True):
            rows = (topics == axiom) & (label == UNSAFE)
            assert abs(2 * ruler.scored[rows].sum() - rows.sum()) <= 1
    assert not np.array_equal(ruler.scored, fit(activations(1, 4.0, (4,)), mode="learned", seed=4).scored)


def test_no_score_of_the_pair_sees_the_prompts_that_taught_the_weights():
    base, tuned = activations(1, 4.0, (4,)), activations(2, 2.0, (4,))
    ruler = fit(base, mode="learned")
    s = ruler.scored
    scores, diagnostics = measure_pair(
        base[s],
        tuned[s],
        UNSAFE[s],
        [a for a, one in zip(AXIOMS, s, strict=True) if one],
        [i for i, one in zip(IDS, s, strict=True) if one],
        representation=ruler.representation,
        resamples=200,
        permutations=199,
    )
    assert {(found.n_safe, found.n_unsafe) for found in scores if found.scope in ("overall", "layer")} == {(70, 70)}
    assert diagnostics.scored.probe_auc_base > diagnostics.scored.probe_auc_tuned > 0.5


def test_the_choice_of_layers_does_not_flatter_noise():
    """Over draws of pure noise the held-out f2 is 0 on average; on the prompts that taught the weights it is not."""
    held_out, taught = [], []
    for seed in range(100):
        base = activations(seed + 100)
        ruler = fit(base, mode="learned", seed=seed)
        for rows, found in ((ruler.scored, held_out), (~ruler.scored, taught)):
            values = embed_pair(base[rows], base[rows], ruler.representation)[0].values
            found.append(float(f2(measure_scatter(values, UNSAFE[rows]))))
    assert abs(np.mean(held_out)) < 3 * np.std(held_out) / np.sqrt(100)
    assert np.mean(taught) > 6 * np.std(taught) / np.sqrt(100)


@pytest.mark.parametrize("options", [{"mode": "learned", "seed": 5}, {"mode": "all", "components": 4}])
def test_the_order_of_the_prompts_does_not_matter(options):
    base = activations(1, 2.0, (2, 4))
    order = np.random.default_rng(9).permutation(N)
    one = fit(base, **options)
    other = fit_ruler(base[order], UNSAFE[order], [AXIOMS[i] for i in order], [IDS[i] for i in order], **options)
    assert other.representation.layers == one.representation.layers
    assert other.representation.weights == one.representation.weights
    assert other.learned == one.learned
    np.testing.assert_array_equal(other.scored, one.scored[order])
    for mine, theirs in ((one.representation.axes, other.representation.axes),):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            np.testing.assert_array_equal(mine, theirs)


def test_too_few_prompts_to_learn_and_score_are_refused():
    base, one_topic = activations(1, 4.0, (4,))[:256], ["all"] * 256
    assert fit_ruler(base, UNSAFE[:256], one_topic, IDS[:256], mode="learned").scored.sum() == 128  # 64 of each: enough
    rows = np.arange(250)  # 125 of each label: 62 or 63 would be scored
    with pytest.raises(InputError, match=r"leaves 62 safe prompts .* at least 64\. Give at least 128 prompts of each"):
        fit_ruler(activations(1)[rows], UNSAFE[rows], AXIOMS[:250], IDS[:250], mode="learned")


def test_a_constant_layer_and_one_that_does_not_exist_are_refused():
    base = activations(1)
    with pytest.raises(UndefinedScore, match="layer 0 is the same"):
        fit(base, mode=0)
    with pytest.raises(ConfigError, match="layer 6 does not exist"):
        fit(base, mode=6)


@pytest.mark.parametrize("width", [WIDTH, 400], ids=["more prompts than dimensions", "fewer"])
def test_both_models_are_projected_on_the_components_of_the_base(width):
    """Against numpy's singular vectors and scikit-learn's index on the projected rows."""
    base, tuned = activations(1, 3.0, (2, 3), width), activations(2, 1.0, (3,), width)
    ruler = fit(base, mode=3, components=4)
    layer = base[:, 3].astype(np.float64)
    centre = layer.mean(axis=0)
    size = np.sqrt(np.mean(np.sum((layer - centre) ** 2, axis=1)))
    _, spread, axes = np.linalg.svd(layer - centre, full_matrices=False)
    projected = [(states[:, 3] - centre) / size @ axes[:4].T for states in (base, tuned)]
    for mine, golden in zip(embed_pair(base, tuned, ruler.representation), projected, strict=True):
        assert mine.values.shape == (N, 4)
        np.testing.assert_allclose(np.abs(mine.values), np.abs(golden), atol=1e-6)
    assert ruler.representation.axes_variance == pytest.approx(np.sum(spread[:4] ** 2) / np.sum(spread**2))
    found = score(base, tuned, ruler)["overall", "pooled"]
    assert found.base.chi == pytest.approx(calinski_harabasz_score(projected[0], UNSAFE), rel=1e-5)
    assert found.tuned.chi == pytest.approx(calinski_harabasz_score(projected[1], UNSAFE), rel=1e-5)


def test_all_components_are_a_rotation_and_change_nothing():
    base, tuned = activations(1, 3.0, (2, 3)), activations(2, 1.0, (3,))
    with_all, without = (score(base, tuned, fit(base, components=k)) for k in (WIDTH, None))
    for key, plain in without.items():
        if plain.status == "ok":
            assert with_all[key].f2_drop_pct.value == pytest.approx(plain.f2_drop_pct.value, abs=1e-3)
            assert with_all[key].base.chi == pytest.approx(plain.base.chi, rel=1e-5)


def test_a_zero_adapter_differs_by_exactly_0_under_both():
    base = activations(1, 3.0, (2, 3))
    ruler = fit(base, mode="learned", components=3)
    found = score(base, base.copy(), ruler)["overall", "pooled"]
    assert (found.delta_aqi.value, found.delta_aqi.low, found.delta_aqi.high) == (0.0, 0.0, 0.0)
    assert found.n_safe == 70


def test_the_layers_own_scores_are_on_all_dimensions():
    base = activations(1, 3.0, (2, 3))
    few, every = (score(base, base, fit(base, mode=3, components=k)) for k in (2, None))
    assert few["layer", "3"] == every["layer", "3"] == score(base, base, fit(base, mode=2))["layer", "3"]
    assert few["overall", "pooled"].base != every["overall", "pooled"].base


def test_few_components_do_not_flatter_noise():
    """The components see no labels, so on noise the f2 stays 0 on average however few they are."""
    found = []
    for seed in range(100):
        base = activations(seed + 300)
        values = embed_pair(base, base, fit(base, mode=2, components=2).representation)[0].values
        found.append(float(f2(measure_scatter(values, UNSAFE))))
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(100)


def test_more_components_than_there_are_is_an_error_with_the_most_there_can_be():
    with pytest.raises(ConfigError, match=r"pca_components=13: 280 scored prompts of width 12 have at most 12"):
        fit(activations(1), components=13)
    with pytest.raises(ConfigError, match=r"140 scored prompts of width 400 have at most 139"):
        fit(activations(1, width=400), mode="learned", components=140)
    flat = activations(1)
    flat[..., 5:] = 1.0
    with pytest.raises(ConfigError, match=r"spread along 5 directions only.*at most 5"):
        fit(flat, mode=2, components=6)
    assert fit(flat, mode=2, components=5).representation.axes.shape == (WIDTH, 5)


@pytest.mark.parametrize(
    ("offset", "small", "directions"),
    [
        # Float32 rounding is a millionth of the states' norm, sqrt(2) x 1000: a spread of .0014.
        (1000.0, 0.005, 2),
        (1000.0, 0.0005, 1),
        (0.0, 0.001, 2),
    ],
)
def test_a_direction_within_rounding_is_no_component(offset, small, directions):
    turns = np.arange(280)
    states = np.zeros((280, 2, 2), dtype=np.float32)
    states[:, 1] = offset + np.stack([np.where(turns % 2, 1, -1), small * np.where(turns // 2 % 2, 1, -1)], axis=1)
    if directions == 1:
        with pytest.raises(ConfigError, match=r"spread along 1 directions only.*at most 1"):
            fit(states, mode=1, components=2)
    assert fit(states, mode=1, components=directions).representation.axes.shape == (2, directions)


def test_variances_along_all_axes_sum_to_the_mean_squared_distance():
    rows = embed_pair(activations(1), activations(1), average_layers((2,)))[0].values
    axes, variances = principal_axes(rows)
    np.testing.assert_allclose(axes.T @ axes, np.eye(WIDTH), atol=1e-12)
    assert variances.sum() == pytest.approx(1.0, rel=1e-6)  # the normalisation's unit
