"""All diagnostics of one pair of models."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import davies_bouldin_score, silhouette_score

from jobs.evaluate.metric.diagnostics import measure_pair
from jobs.evaluate.metric.geometry import score_geometry
from pipeline_common.diagnostic_measures import ClusterShape, Diagnostics
from pipeline_common.errors import InputError
from pipeline_common.measures import Measures

N, LAYERS, WIDTH = 140, 3, 12
AXIOMS = [f"axiom {(i // 2) % 3}" for i in range(N)]
UNSAFE = np.arange(N) % 2 == 1
IDS = [f"prompt-{(i * 37) % N:03d}" for i in range(N)]


def activations(seed: int, separation: float) -> np.ndarray:
    states = np.random.default_rng(seed).standard_normal((N, LAYERS + 1, WIDTH)).astype(np.float32)
    states += separation * UNSAFE[:, None, None]
    states[:, 0] = 0.321  # the embedding of the shared last token
    return states * np.arange(1, LAYERS + 2, dtype=np.float32)[:, None]


BASE = activations(0, 1.0)
TUNED = BASE.copy()
TUNED[:, 3] = activations(1, 0.0)[:, 3]
"""Layers 1 and 2 unchanged, layer 3 unrelated and without separation."""


def measure(base=BASE, tuned=TUNED, unsafe=UNSAFE, axioms=AXIOMS, ids=IDS, **options):
    return measure_pair(base, tuned, unsafe, axioms, ids, **{"resamples": 200, "permutations": 199, **options})


@pytest.fixture(scope="module")
def found() -> Diagnostics:
    return measure()[1]


def test_the_scores_are_those_without_diagnostics():
    assert measure()[0] == score_geometry(BASE, TUNED, UNSAFE, AXIOMS, IDS, resamples=200)


def test_a_layer_that_did_not_change_and_one_that_is_lost(found):
    same, lost = found.layers[1], found.layers[3]
    assert (same.name, lost.name) == ("1", "3")
    assert same.cka == pytest.approx(1.0)
    assert same.direction_cosine == pytest.approx(1.0)
    assert same.projection_gap_tuned == pytest.approx(same.projection_gap_base)
    assert same.probe_auc_tuned == pytest.approx(same.probe_auc_base)
    assert same.base == same.tuned
    assert same.base.silhouette == pytest.approx(silhouette_score(BASE[:, 1], UNSAFE), abs=1e-5)
    assert lost.base.davies_bouldin == pytest.approx(davies_bouldin_score(BASE[:, 3], UNSAFE), rel=1e-4)
    assert abs(lost.cka) < 0.2
    assert abs(lost.projection_gap_tuned) < 0.3 * lost.projection_gap_base
    assert lost.probe_auc_base > 0.9
    assert lost.probe_auc_tuned == pytest.approx(0.5, abs=0.15)


def test_the_tests_and_their_adjustment(found):
    tests = {(test.scope, test.name): test for test in found.tests}
    assert list(tests) == [
        ("overall", "pooled"),
        *[("axiom", f"axiom {a}") for a in range(3)],
        *[("layer", str(layer)) for layer in range(4)],
    ]
    assert tests["layer", "1"].p_change == 1.0
    assert tests["layer", "3"].p_change == 1 / 256  # swaps: the next power of two
    assert tests["layer", "3"].holm_change == pytest.approx(3 / 256)  # three layers have a test
    assert tests["layer", "3"].p_tuned > 0.05
    assert tests["layer", "3"].p_base == 1 / 200
    pooled = tests["overall", "pooled"]  # layers 1 and 2: unchanged
    assert (pooled.p_base, pooled.p_tuned, pooled.p_change, pooled.holm_change) == (1 / 200, 1 / 200, 1.0, None)
    assert tests["axiom", "axiom 0"].holm_base == pytest.approx(3 / 200)


def test_what_does_not_exist_is_none_with_a_reason(found):
    constant = found.layers[0]
    assert "same for every prompt" in constant.reason
    assert (constant.cka, constant.base) == (None, ClusterShape())
    tests = {(test.scope, test.name): test for test in found.tests}
    assert tests["layer", "0"].p_base is None
    axioms = ["one label" if u and i < 60 else "main" for i, u in enumerate(UNSAFE)]
    lone = measure(axioms=axioms)[1].tests
    assert [(t.name, t.reason) for t in lone if t.scope == "axiom"] == [
        ("main", None),
        ("one label", "0 safe prompt(s): a group needs at least 2 to have a spread"),
    ]
    # 9 safe prompts and 7 unsafe ones of an axiom: fewer than 8 of a label, so no test, as there is no score.
    few = ["few" if i < 18 - 4 * u else "main" for i, u in enumerate(UNSAFE)]
    by_name = {test.name: test for test in measure(axioms=few)[1].tests if test.scope == "axiom"}
    assert by_name["few"].p_base is None
    assert by_name["few"].reason == "7 prompt(s) of a label, expected at least 8"
    eight = ["eight" if i < 16 else "main" for i in range(N)]
    by_name = {test.name: test for test in measure(axioms=eight)[1].tests if test.scope == "axiom"}
    assert by_name["eight"].p_base < 0.05
    noise = measure(base=activations(2, 0.0), tuned=activations(3, 0.0))[1]
    without = [layer for layer in noise.layers[1:] if layer.direction_cosine is None]
    assert without
    # The base has a direction there, the tuned model has none: that is the missing cosine's reason, and no other's.
    lost = measure(tuned=activations(4, 0.0))[1].layers[1:]
    says = "the tuned model's difference of label means is not above chance: no cosine"
    assert [layer.reason for layer in lost] == [says if layer.direction_cosine is None else None for layer in lost]
    assert [layer.direction_cosine is None for layer in lost].count(True) in (1, 2)


def test_the_order_of_the_prompts_does_not_matter(found):
    order = np.random.default_rng(9).permutation(N)
    shuffled = measure(BASE[order], TUNED[order], UNSAFE[order], [AXIOMS[i] for i in order], [IDS[i] for i in order])
    assert shuffled[1] == found


def test_inputs_that_do_not_belong_together_are_refused():
    with pytest.raises(InputError, match="'axioms': 139"):
        measure(axioms=AXIOMS[:-1])


def test_the_seed_is_used_and_the_record_is_json(found):
    other = measure(seed=1)[1]
    assert other.scored.probe_auc_base != found.scored.probe_auc_base
    assert Diagnostics.model_validate_json(found.model_dump_json()) == found
    assert Measures.model_fields["diagnostics"].default is None
