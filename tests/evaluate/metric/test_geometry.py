"""All scopes of one pair of models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import calinski_harabasz_score

from jobs.evaluate.metric.geometry import MIN_AXIOM_ROWS, score_geometry
from jobs.evaluate.metric.representation import average_layers
from jobs.evaluate.metric.role_scores import RoleScore, average_roles
from pipeline_common.errors import InputError
from pipeline_common.measures import Estimate
from pipeline_common.stages import REPOSITORY

N, LAYERS, WIDTH = 140, 4, 12
AXIOMS = [f"axiom {(i // 2) % 3}" for i in range(N)]
UNSAFE = np.arange(N) % 2 == 1
IDS = [f"prompt-{(i * 37) % N:03d}" for i in range(N)]


def activations(seed: int, separation: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    states = rng.standard_normal((N, LAYERS + 1, WIDTH)).astype(np.float32)
    states += separation * UNSAFE[:, None, None]
    states[:, 0] = 0.321  # the embedding of the shared last token
    return states * np.arange(1, LAYERS + 2, dtype=np.float32)[:, None]


BASE = activations(0, 1.0)
TUNED = (BASE + 0.5 * activations(1, -1.0)).astype(np.float32)


def score(base=BASE, tuned=TUNED, unsafe=UNSAFE, axioms=AXIOMS, ids=IDS, **options):
    scores = score_geometry(base, tuned, unsafe, axioms, ids, **{"resamples": 200, **options})
    return {(s.scope, s.name): s for s in scores}


def test_scopes_and_their_values():
    scores = score()
    assert list(scores) == [
        ("overall", "pooled"),
        ("overall_stratified", "mean of axioms"),
        *[("axiom", f"axiom {a}") for a in range(3)],
        *[("layer", str(layer)) for layer in range(5)],
    ]
    for layer in (1, 2, 3, 4):
        found = scores["layer", str(layer)]
        assert found.base.chi == pytest.approx(calinski_harabasz_score(BASE[:, layer], UNSAFE), rel=1e-5)
        assert found.tuned.chi == pytest.approx(calinski_harabasz_score(TUNED[:, layer], UNSAFE), rel=1e-5)
    axioms = [scores["axiom", f"axiom {a}"] for a in range(3)]
    mean = scores["overall_stratified", "mean of axioms"]
    assert mean.base.f2.value == pytest.approx(np.mean([a.base.f2.value for a in axioms]))
    assert mean.delta_aqi.value == pytest.approx(np.mean([a.delta_aqi.value for a in axioms]))
    assert (mean.n_safe, mean.n_unsafe) == (70, 70)


def test_an_axioms_score_is_that_of_its_own_prompts_and_the_mean_is_of_all_of_it():
    scores = score(representation=average_layers((2,)))  # one layer: the indices are those of its raw states
    topics = np.asarray(AXIOMS)
    axioms = []
    for name in sorted(set(AXIOMS)):
        rows, found = topics == name, scores["axiom", name]
        axioms.append(found)
        for states, measured in ((BASE, found.base), (TUNED, found.tuned)):
            chi = calinski_harabasz_score(states[rows, 2], UNSAFE[rows])
            n, product = found.n_safe + found.n_unsafe, found.n_safe * found.n_unsafe
            assert measured.chi == pytest.approx(chi, rel=1e-5)
            assert measured.xbi == pytest.approx((n - 2) * product / n**2 / chi, rel=1e-5)  # the identity
            # Explained share chi / (chi + n - 2), corrected for chance.
            assert measured.r2_adj == pytest.approx(100 * (1 - (n - 1) / (chi + n - 2)), rel=1e-5)
    mean = scores["overall_stratified", "mean of axioms"]
    for model in ("base", "tuned"):
        averaged, ones = getattr(mean, model), [getattr(found, model) for found in axioms]
        for index in ("xbi", "chi", "r2_adj"):
            assert getattr(averaged, index) == pytest.approx(np.mean([getattr(one, index) for one in ones]))
        assert averaged.aqi.low < averaged.aqi.value < averaged.aqi.high
        assert averaged.f2.low < averaged.f2.value < averaged.f2.high
    assert mean.delta_aqi.low < mean.delta_aqi.value < mean.delta_aqi.high


def test_without_an_xbi_of_every_axiom_there_is_no_mean_of_it():
    cloud = np.zeros(2)
    one = RoleScore(xbi=0.2, chi=1.0, aqi=1.0, f2=0.1, r2_adj=0.0, aqi_cloud=cloud, f2_cloud=cloud)
    assert average_roles([one, replace(one, xbi=0.4)]).xbi == pytest.approx(0.3)
    assert average_roles([one, replace(one, xbi=None)]).xbi is None


def test_coinciding_centroids_have_no_xbi_and_an_aqi_of_0():
    # -1 and 1 by turns in either label: mean 0, root mean square distance 1, so nothing is rounded.
    states = np.zeros((16, 2, 1), dtype=np.float32)
    states[:, 1, 0] = np.tile([-1, -1, 1, 1], 4)
    found = score(states, states, UNSAFE[:16], ["one"] * 16, IDS[:16])["overall", "pooled"]
    assert (found.status, found.base.xbi, found.base.chi, found.base.aqi.value) == ("ok", None, 0.0, 0.0)
    assert found.base.f2.value == pytest.approx(-16 / 64)  # (0 - 1) n / (n_safe n_unsafe)


def test_numbers_of_one_scope_fit_together():
    overall = score()["overall", "pooled"]
    assert overall.delta_aqi.value == pytest.approx(overall.tuned.aqi.value - overall.base.aqi.value)
    assert overall.drop_pct.value == pytest.approx(-100 * overall.delta_aqi.value / overall.base.aqi.value)
    assert overall.f2_drop_pct.value == pytest.approx(100 * (1 - overall.tuned.f2.value / overall.base.f2.value))
    assert overall.f2_drop_pct.value > 0 > overall.delta_aqi.value
    for estimate in (overall.base.aqi, overall.tuned.f2, overall.delta_aqi, overall.drop_pct, overall.f2_drop_pct):
        assert estimate.low < estimate.value < estimate.high
    # AQI and f2 are linear in each other, so their intervals map onto each other.
    f2, aqi = overall.base.f2, overall.base.aqi
    assert (f2.high - f2.value) / (f2.value - f2.low) == pytest.approx((aqi.high - aqi.value) / (aqi.value - aqi.low))


def test_a_zero_adapter_differs_by_exactly_0():
    for found in score(tuned=BASE.copy()).values():
        if found.name == "0":
            assert found.status == "undefined"
            continue
        assert (found.delta_aqi.value, found.delta_aqi.low, found.delta_aqi.high) == (0.0, 0.0, 0.0)
        assert (found.drop_pct.value, found.drop_pct.low, found.drop_pct.high) == (0.0, 0.0, 0.0)
        assert (found.f2_drop_pct.value, found.f2_drop_pct.low, found.f2_drop_pct.high) == (0.0, 0.0, 0.0)
        assert found.base == found.tuned


def test_embeddings_that_are_equal_for_all_prompts_are_undefined_not_0():
    layer_0 = score()["layer", "0"]
    assert (layer_0.status, layer_0.base.aqi, layer_0.delta_aqi) == (
        "undefined",
        Estimate(value=None),
        layer_0.drop_pct,
    )
    assert "same for every prompt" in layer_0.reason


def test_the_order_of_the_prompts_does_not_matter():
    order = np.random.default_rng(9).permutation(N)
    shuffled = score(BASE[order], TUNED[order], UNSAFE[order], [AXIOMS[i] for i in order], [IDS[i] for i in order])
    assert shuffled == score()


def test_one_uniform_scale_and_shift_of_a_model_changes_nothing():
    moved = score(tuned=(4.0 * TUNED + 2.0).astype(np.float32))
    for key, found in score().items():
        if found.status == "ok":
            assert moved[key].f2_drop_pct.value == pytest.approx(found.f2_drop_pct.value, abs=1e-3)


def test_seed_and_layers_are_used():
    assert score(seed=1)["overall", "pooled"] != score(seed=2)["overall", "pooled"]
    by_layer = score(representation=average_layers((3,)))
    assert by_layer["overall", "pooled"].base == by_layer["layer", "3"].base
    every = score(representation=average_layers((1, 2, 3, 4)))
    assert every["overall", "pooled"].base != by_layer["layer", "3"].base
    assert score() == score(representation=average_layers((2, 3)))


def test_axioms_with_one_label_or_few_rows_are_undefined_and_named():
    axioms = ["one label" if u and i < 60 else "main" for i, u in enumerate(UNSAFE)]
    axioms[0] = axioms[1] = "two rows"
    scores = score(axioms=axioms)
    assert scores["axiom", "one label"].reason == "0 safe prompt(s), expected at least 8"
    assert scores["axiom", "two rows"].reason == "1 safe prompt(s), expected at least 8"
    mean = scores["overall_stratified", "mean of axioms"]
    assert mean.reason.startswith("mean of 1 of 3 axioms; undefined: one label: 0 safe")
    assert mean.base == scores["axiom", "main"].base
    assert scores["overall", "pooled"].status == "ok"
    eight = score(axioms=["eight" if i < 16 else "main" for i in range(N)])
    assert (eight["axiom", "eight"].status, eight["axiom", "eight"].n_safe) == ("ok", 8)


def test_a_tuned_model_that_says_the_same_of_every_prompt_is_undefined_not_a_drop_of_100():
    collapsed = np.full_like(TUNED, 0.5)
    found = score(tuned=collapsed)["overall", "pooled"]
    assert (found.status, found.f2_drop_pct, found.base.chi) == ("undefined", Estimate(value=None), None)
    assert found.reason.startswith("no spread within the groups")


@pytest.mark.parametrize(("pairs", "status"), [(MIN_AXIOM_ROWS, "ok"), (MIN_AXIOM_ROWS - 1, "undefined")])
def test_the_floor_of_an_axiom_is_the_one_that_the_page_tells(pairs, status):
    axioms = ["small" if i < 2 * pairs else "main" for i in range(N)]  # the labels take turns
    assert score(axioms=axioms)["axiom", "small"].status == status
    page = (REPOSITORY / "docs" / "own-data.md").read_text(encoding="utf-8")
    assert f"An axiom needs {MIN_AXIOM_ROWS} scored prompts of each label" in page


def test_without_any_usable_axiom_or_label_everything_is_undefined():
    apart = score(axioms=[f"axiom {i}" for i in range(N)])
    assert apart["overall_stratified", "mean of axioms"].status == "undefined"
    assert apart["overall", "pooled"].status == "ok"
    one_label = score(unsafe=np.zeros(N, dtype=bool))
    assert {s.status for s in one_label.values()} == {"undefined"}
    assert "0 unsafe" in one_label["overall", "pooled"].reason


def test_without_separation_in_the_base_a_percentage_is_undefined_but_the_difference_is_not():
    noise = activations(3, 0.0)
    overall = score(base=noise, tuned=(noise + 0.1 * activations(4, 0.0)).astype(np.float32))["overall", "pooled"]
    assert overall.status == "ok"
    assert overall.f2_drop_pct.value is None
    assert "not reliably above 0" in overall.reason
    assert overall.delta_aqi.low < 0 < overall.delta_aqi.high


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tuned": TUNED[:-1]}, r"base \(140, 5, 12\) and tuned \(139, 5, 12\)"),
        ({"base": BASE[:, :1], "tuned": TUNED[:, :1]}, r"base \(140, 1, 12\)"),  # embeddings alone
        ({"axioms": AXIOMS[:-1]}, "'axioms': 139"),
        ({"ids": ["same"] * N}, "same occurs more than once"),
    ],
)
def test_inputs_that_do_not_belong_together_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        score(**change)


def test_nan_is_refused_by_prompt_and_layer():
    broken = TUNED.copy()
    broken[5, 2, 0] = np.nan
    with pytest.raises(InputError, match=rf"tuned activations: .*prompt 5 \({IDS[5]}\), layer 2"):
        score(tuned=broken)
