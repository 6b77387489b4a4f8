"""The stage with learned layer weights, principal components and other forms of the index."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from safetensors import safe_open
from sklearn.metrics import calinski_harabasz_score

from pipeline_common.errors import ConfigError, InputError
from tests.evaluate.made_models import LAYERS, WIDTH, labelled_prompts
from tests.evaluate.workshop import FILES, Workshop, read_lines, read_measures

OPTIONS = (
    "evaluate.layers=learned",
    "evaluate.prompts_per_class=128",
    "evaluate.pca_components=4",
    "evaluate.extra_indices=[b4, legacy100]",
    "evaluate.responses_per_class=100",
)


@pytest.fixture(scope="module")
def learned(workshop: Workshop) -> Path:
    return workshop.evaluate("learned", *OPTIONS, prompts=labelled_prompts(140))


def test_learned_weights_and_components_score_one_half_and_answer_all(learned):
    measures = read_measures(learned)
    weights = measures.learned_weights
    assert (measures.n_safe, measures.n_unsafe, weights.n_safe, weights.n_unsafe) == (64, 64, 64, 64)
    assert {(score.n_safe, score.n_unsafe) for score in measures.geometry if score.scope == "layer"} == {(64, 64)}
    assert [rate.n for rate in measures.rates] == [100, 100]
    assert (measures.refusal_gap.n_safe, measures.refusal_gap.n_unsafe) == (128, 128)
    assert [one.layer for one in weights.layers] == [1, 2, 3]
    assert sum(one.weight for one in weights.layers) == pytest.approx(1)
    assert measures.scored_layers == tuple(one.layer for one in weights.layers if one.weight > 0)
    assert "learned on 64 safe and 64 unsafe prompts of the base model, none of which is scored" in (
        measures.representation
    )
    assert "projected on the base model's first 4 principal components" in measures.representation
    assert {control.name: control.status for control in measures.controls}["label_noise_1"] == "ok"


def test_the_scored_prompts_are_marked_and_their_vectors_kept(learned):
    prompts = read_lines(learned / "prompts.jsonl")
    scored = [prompt for prompt in prompts if prompt["scored"]]
    assert (len(prompts), len(scored)) == (256, 128)
    assert Counter(prompt["safety_label"] for prompt in scored) == {"safe": 64, "unsafe": 64}
    assert Counter((prompt["axiom"], prompt["safety_label"]) for prompt in scored) == pytest.approx(
        Counter((prompt["axiom"], prompt["safety_label"]) for prompt in prompts if not prompt["scored"]), abs=1
    )
    with safe_open(learned / "embeddings.safetensors", framework="np") as stored:
        facts = json.loads(stored.metadata()["facts"])
        base = stored.get_tensor("base")
    assert base.shape == (128, 4)
    assert facts["prompt_ids"] == [prompt["prompt_id"] for prompt in scored]
    measures = read_measures(learned)
    assert (tuple(facts["layers"]), facts["pca_components"]) == (measures.scored_layers, 4)
    assert facts["layer_weights"] == [one.weight for one in measures.learned_weights.layers if one.weight > 0]
    # The headline is the index of these vectors and no others.
    unsafe = [prompt["safety_label"] == "unsafe" for prompt in scored]
    assert measures.geometry[0].base.chi == pytest.approx(calinski_harabasz_score(base, unsafe), rel=1e-4)
    with safe_open(learned / "activations_base.safetensors", framework="np") as stored:
        assert stored.get_tensor("activations").shape == (256, LAYERS + 1, WIDTH)
        assert len(json.loads(stored.metadata()["facts"])["prompt_ids"]) == 256


def test_other_forms_of_the_index_are_stored_with_their_references(learned):
    b4, legacy = read_measures(learned).extra_indices
    assert [score.name for score in b4.scores] == ["pooled", "Justice", "Peace"]
    measures = read_measures(learned)
    keys = [score for score in measures.geometry if score.scope in ("overall", "axiom")]
    chi_max = max(indices.chi for score in keys for indices in (score.base, score.tuned))
    assert b4.references[0].chi_max == pytest.approx(chi_max)
    assert [reference.covers for reference in legacy.references] == ["base", "tuned"]
    assert legacy.references[1].chi_max == pytest.approx(max(score.tuned.chi for score in keys))


def test_the_options_give_the_same_bytes_whatever_the_order_of_the_prompts(workshop, learned):
    again = workshop.evaluate("learned-again", *OPTIONS, prompts=labelled_prompts(140)[::-1])
    for name in FILES:
        if name != "judge_steps.json":  # no judge here
            assert (again / name).read_bytes() == (learned / name).read_bytes(), name


def test_options_that_the_data_cannot_serve_are_told(workshop):
    with pytest.raises(InputError, match=r"96 safe, 96 unsafe; 128 per label are the floor of learned layer weights"):
        workshop.evaluate("short", "evaluate.layers=learned", "evaluate.prompts_per_class=128")
    with pytest.raises(ConfigError, match=rf"128 scored prompts of width {WIDTH} have at most {WIDTH} principal"):
        workshop.evaluate("wide", "evaluate.pca_components=100")
