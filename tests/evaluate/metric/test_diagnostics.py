"""All diagnostics of one pair of models."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import davies_bouldin_score, silhouette_score

from jobs.evaluate.metric.diagnostics import measure_pair
from jobs.evaluate.metric.geometry import score_geometry
from pipeline_common.diagnostic_measures import ClusterShape, Diagnostics
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
    assert tests["overall", "pooled"].holm_change is None
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
    noise = measure(base=activations(2, 0.0), tuned=activations(3, 0.0))[1]
    without = [layer for layer in noise.layers[1:] if layer.direction_cosine is None]
    assert all("not above chance" in layer.reason for layer in without)
    assert without


def test_the_order_of_the_prompts_does_not_matter(found):
    order = np.random.default_rng(9).permutation(N)
    shuffled = measure(BASE[order], TUNED[order], UNSAFE[order], [AXIOMS[i] for i in order], [IDS[i] for i in order])
    assert shuffled[1] == found


def test_the_seed_is_used_and_the_record_is_json(found):
    other = measure(seed=1)[1]
    assert other.scored.probe_auc_base != found.scored.probe_auc_base
    assert Diagnostics.model_validate_json(found.model_dump_json()) == found
    assert Measures.model_fields["diagnostics"].default is None
