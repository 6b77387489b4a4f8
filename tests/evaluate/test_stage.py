"""The whole stage on a small model that refuses, with real stores; only the model is small."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from tests.evaluate.made_models import LAYERS, WIDTH, labelled_prompts
from tests.evaluate.workshop import FILES, Workshop, read_lines, read_measures


@pytest.fixture(scope="module")
def finished(workshop: Workshop) -> Path:
    return workshop.evaluate("first", "evaluate.judge.min_digit_mass=0", "evaluate.judge.max_prompts=10", judge=True)


def test_measures(finished):
    measures = read_measures(finished)
    assert (measures.n_safe, measures.n_unsafe) == (64, 64)
    assert [score.name for score in measures.geometry] == [
        "pooled",
        "mean of axioms",
        "Justice",
        "Peace",
        "0",
        "1",
        "2",
        "3",
    ]
    # The last prompt token is "]" for every prompt, so its embedding separates nothing.
    assert [score.status for score in measures.geometry] == ["ok"] * 4 + ["undefined"] + ["ok"] * 3
    unsafe, safe = measures.rates
    assert (unsafe.name, unsafe.n, safe.name, safe.n) == ("refusal_unsafe", 64, "over_refusal_safe", 64)
    assert unsafe.base > 0.9
    assert safe.base < 0.1
    assert measures.refusal_gap is not None
    assert measures.refusal_gap.base > 2
    assert "of the base model's" in measures.refusal_gap_note
    assert measures.coherence.n == 128
    assert measures.coherence.base is not None
    assert measures.representation.startswith("last prompt token; layer 2 of 3")
    # The small model is asked for evaluation steps and writes none.
    assert [found.name for found in measures.degradations] == ["judge wrote no evaluation steps"]


def test_the_controls_are_measured_by_default(finished):
    measures = read_measures(finished)
    controls = {control.name: control for control in measures.controls}
    assert len(controls) == 12
    undefined = {name: control.reason for name, control in controls.items() if control.status == "undefined"}
    constant = "layer 0 is the same for every prompt: nothing to separate"
    assert {name: undefined.pop(name) for name in ("layer_0", "layer_0_f2")} == dict.fromkeys(
        ("layer_0", "layer_0_f2"), constant
    )
    assert all("every prompt is of" in str(reason) for reason in undefined.values())
    f2 = measures.geometry[0].base.f2.value
    noisy = [controls[f"label_noise_{percent}"].value.value for percent in (1, 5, 10)]
    assert f2 > noisy[0] > noisy[1] > noisy[2] > controls["shuffled_labels"].value.value


def test_diagnostics(finished):
    measures = read_measures(finished)
    diagnostics = measures.diagnostics
    assert diagnostics is not None
    assert [layer.name for layer in diagnostics.layers] == ["0", "1", "2", "3"]
    assert diagnostics.layers[0].reason == "layer 0 is the same for every prompt: nothing to separate"
    # The small model refuses because it tells the prompts apart; the adapter is small.
    assert diagnostics.scored.probe_auc_base > 0.9
    assert diagnostics.scored.cka > 0.5
    assert diagnostics.scored.projection_gap_base > 0
    assert [(test.scope, test.name) for test in diagnostics.tests] == [
        ("overall", "pooled"),
        ("axiom", "Justice"),
        ("axiom", "Peace"),
        *[("layer", str(layer)) for layer in range(4)],
    ]
    assert diagnostics.permutations == 199
    assert diagnostics.tests[0].p_base == 1 / 200
    assert diagnostics.tests[4].holm_base >= diagnostics.tests[4].p_base


def test_the_judge_is_paired_and_its_bias_is_shown(finished):
    judgement = read_measures(finished).judgement
    assert judgement.status == "measured"
    assert "BIAS" in judgement.note
    assert {score.criterion: score.n for score in judgement.scores} == {
        "harmlessness": 10,
        "refusal_quality": 10,
        "helpfulness": 10,
        "honesty": 20,
        "coherence": 20,
    }
    assert all(score.mass_base is not None and score.unparsed_base == 0 for score in judgement.scores)
    steps = json.loads((finished / "judge_steps.json").read_text(encoding="utf-8"))
    assert set(steps["criteria"]) == {score.criterion for score in judgement.scores}
    assert {entry["source"] for entry in steps["criteria"].values()} == {"fixed"}
    judged = [row for row in read_lines(finished / "responses.jsonl") if row["judge_scores"]]
    assert len(judged) == 2 * 20
    assert all(0 <= score["score"] <= 1 for row in judged for score in row["judge_scores"].values())


def test_tensors_prompts_and_responses_share_one_order(finished):
    ids = [row["prompt_id"] for row in read_lines(finished / "prompts.jsonl")]
    assert ids == sorted(ids)
    for role in ("base", "tuned"):
        with safe_open(finished / f"activations_{role}.safetensors", framework="np") as stored:
            assert stored.get_tensor("activations").shape == (128, LAYERS + 1, WIDTH)
            assert json.loads(stored.metadata()["facts"])["prompt_ids"] == ids
    embedded = load_file(finished / "embeddings.safetensors")
    assert {name: tensor.shape for name, tensor in embedded.items()} == {"base": (128, WIDTH), "tuned": (128, WIDTH)}
    responses = read_lines(finished / "responses.jsonl")
    assert [(row["prompt_id"], row["model_role"]) for row in responses] == [
        (i, r) for i in ids for r in ("base", "tuned")
    ]
    refused = Counter((row["model_role"], row["safety_label"]) for row in responses if row["refused"])
    unsafe = read_measures(finished).rates[0]
    assert refused["base", "unsafe"] == round(64 * unsafe.base)
    gap = read_measures(finished).refusal_gap
    odds = {
        label: np.mean(
            [r["refusal_log_odds"] for r in responses if r["model_role"] == "base" and r["safety_label"] == label]
        )
        for label in ("safe", "unsafe")
    }
    assert gap is not None
    assert gap.base == pytest.approx(odds["unsafe"] - odds["safe"])


def test_rows_reach_the_database(finished):
    assert len(read_lines(finished / "rows" / "model_responses.jsonl")) == 256
    assert len(read_lines(finished / "rows" / "aqi_scores.jsonl")) == 8


def test_the_same_bytes_again_and_whatever_the_order_of_the_prompts(workshop, finished):
    again = workshop.evaluate(
        "again",
        "evaluate.judge.min_digit_mass=0",
        "evaluate.judge.max_prompts=10",
        judge=True,
        prompts=labelled_prompts()[::-1],
    )
    for name in FILES:
        assert (again / name).read_bytes() == (finished / name).read_bytes(), name


def test_part_of_the_prompts_answered_and_no_judge(workshop):
    folder = workshop.evaluate(
        "part", "evaluate.responses_per_class=20", "evaluate.pooling=mean", "evaluate.layers=all"
    )
    measures = read_measures(folder)
    assert [rate.n for rate in measures.rates] == [20, 20]
    assert measures.refusal_gap is not None
    assert (measures.refusal_gap.n_safe, measures.refusal_gap.n_unsafe) == (64, 64)
    assert len(read_lines(folder / "responses.jsonl")) == 80
    assert measures.judgement.status == "not_measured"
    assert "evaluate.judge.kind=none" in measures.judgement.note
    assert measures.geometry[4].status == "ok"  # mean pooling sees words already in the embeddings
