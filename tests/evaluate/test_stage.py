"""The whole stage on a small model that refuses, with real stores; only the model is small."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from sklearn.metrics import calinski_harabasz_score

from pipeline_common.config import load_config
from pipeline_common.errors import ConfigError, InputError
from pipeline_common.measures import Measures
from tests.evaluate.judge.made_server import GOOD, Server, completion
from tests.evaluate.made_models import LAYERS, WIDTH, build_adapter, labelled_prompts, publish_inputs

FILES = (
    "measures.json",
    "activations_base.safetensors",
    "activations_tuned.safetensors",
    "embeddings.safetensors",
    "prompts.jsonl",
    "responses.jsonl",
    "judge_steps.json",
)


class Workshop:
    """Runs the stage in folders of its own."""

    def __init__(self, base: Path, adapter: Path, folder: Path) -> None:
        self.base, self.adapter, self.folder = base, adapter, folder

    def evaluate(
        self, name: str, *overrides: str, adapter: Path | None = None, judge: bool = False, prompts: Any = None
    ) -> Path:
        from jobs.evaluate.stage import run
        from pipeline_common.execution import run_stage

        settings = [
            f"model.base={self.base}",
            "model.quantization=none",
            f"runtime.output_dir={self.folder / name}",
            "evaluate.prompts_per_class=64",
            "evaluate.resamples=200",
            "evaluate.permutations=199",
            "evaluate.max_new_tokens=12",
            *([f"evaluate.judge.model={self.base}"] if judge else ["evaluate.judge.kind=none"]),
            *overrides,
        ]
        config = load_config("tiny", settings)
        place, plan = publish_inputs(
            config,
            self.base,
            adapter or self.adapter,
            judge=self.base if judge else None,
            prompts=labelled_prompts() if prompts is None else prompts,
        )
        manifest = run_stage(place, plan, plan.stages["evaluate"], run, force=False)
        return place.store.locate(manifest)


@pytest.fixture(scope="module")
def workshop(base_folder: Path, adapter_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(base_folder, adapter_folder, tmp_path_factory.mktemp("stage"))


@pytest.fixture(scope="module")
def finished(workshop: Workshop) -> Path:
    return workshop.evaluate("first", "evaluate.judge.min_digit_mass=0", "evaluate.judge.max_prompts=10", judge=True)


def read_measures(folder: Path) -> Measures:
    return Measures.model_validate_json((folder / "measures.json").read_text(encoding="utf-8"))


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


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


def test_an_endpoint_that_is_away_costs_the_judgement_only(workshop):
    folder = workshop.evaluate(
        "away",
        "evaluate.judge.kind=endpoint",
        "evaluate.judge.base_url=http://127.0.0.1:9/v1",
        "evaluate.judge.model=some-judge",
        "evaluate.judge.max_attempts=1",
    )
    measures = read_measures(folder)
    assert measures.judgement.status == "not_measured"
    assert "http://127.0.0.1:9/v1/chat/completions is unreachable" in measures.judgement.note
    assert [found.name for found in measures.degradations] == ["judge unreachable"]
    assert measures.rates[0].n == 64


def test_an_endpoint_without_logprobs_and_with_a_small_budget(workshop):
    """Five lists of steps, one reply that shows the lack of logprobs, then pairs of samples until the budget ends."""
    steps = completion("1. Read the answer.\n2. Give 5 or 1.")
    script = [(200, steps, {}, 0.0)] * 5 + [(200, completion("4"), {}, 0.0)]
    server = Server(script)
    try:
        folder = workshop.evaluate(
            "sampled",
            "evaluate.judge.kind=endpoint",
            f"evaluate.judge.base_url={server.url}",
            "evaluate.judge.model=some-judge",
            "evaluate.judge.samples=2",
            "evaluate.judge.max_requests=46",
        )
    finally:
        server.close()
    assert len(server.requests) == 46
    measures = read_measures(folder)
    assert measures.judgement.status == "measured"
    assert "evaluation steps written by the judge (judge_steps.json)" in measures.judgement.note
    assert [found.name for found in measures.degradations] == [
        "judge without token probabilities",
        "judge budget spent",
    ]
    assert measures.degradations[0].detail.startswith("20 of ")
    scores = {score.criterion: score for score in measures.judgement.scores}
    # Both labels were asked about before the budget ended; what was not asked is missing and not "outside the form".
    assert scores["harmlessness"].n > 0
    assert scores["helpfulness"].n > 0
    assert {score.base for score in scores.values() if score.n} == {0.75}
    assert scores["honesty"].missing_base > 0
    assert scores["honesty"].unparsed_base == 0
    kept = json.loads((folder / "judge_steps.json").read_text(encoding="utf-8"))
    assert kept["criteria"]["honesty"] == {"source": "judge", "steps": ["Read the answer.", "Give 5 or 1."]}


def test_fixed_steps_ask_the_judge_for_none(workshop):
    server = Server([(200, GOOD, {}, 0.0)])
    try:
        folder = workshop.evaluate(
            "fixed",
            "evaluate.judge.kind=endpoint",
            f"evaluate.judge.base_url={server.url}",
            "evaluate.judge.model=some-judge",
            "evaluate.judge.steps=fixed",
            "evaluate.judge.max_prompts=2",
        )
    finally:
        server.close()
    measures = read_measures(folder)
    assert measures.degradations == ()
    assert "fixed evaluation steps" in measures.judgement.note
    assert all("Score (1-5):" in request["messages"][0]["content"] for request in server.requests)
    assert all(score.base == pytest.approx(3.25 / 4) for score in measures.judgement.scores)
    assert all(score.mass_base == pytest.approx(1.0) for score in measures.judgement.scores)


def test_models_that_refuse_nothing_have_no_gap(base_folder, adapter_folder, tmp_path):
    """Every prompt is one that the small model helps with, whatever its label says."""
    safe = [row for row in labelled_prompts(240) if row["safety_label"] == "safe"]
    prompts = [{**row, "safety_label": "unsafe" if place % 2 else "safe"} for place, row in enumerate(safe)]
    folder = Workshop(base_folder, adapter_folder, tmp_path).evaluate("helpful", prompts=prompts)
    measures = read_measures(folder)
    assert measures.refusal_gap is None
    assert "together refused" in measures.refusal_gap_note
    assert {row["refusal_log_odds"] for row in read_lines(folder / "responses.jsonl")} == {None}


def test_nan_names_the_prompt_and_the_layer(base_folder, tmp_path):
    adapter = build_adapter(base_folder, tmp_path / "adapter")
    path = adapter / "adapter_model.safetensors"
    weights = load_file(path)
    broken = next(name for name in weights if "layers.1" in name and "lora_B" in name)
    save_file({**weights, broken: np.full_like(weights[broken], np.nan)}, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"tuned activations: NaN or infinity at prompt 0 \(prompt-\d+\), layer 2"):
        Workshop(base_folder, adapter, tmp_path).evaluate("nan")


def test_an_unscorable_layer_is_an_error(workshop):
    with pytest.raises(InputError, match=r"evaluate.layers=0 .* the same for every prompt.*choose other layers"):
        workshop.evaluate("constant", "evaluate.layers=0")


def test_too_few_prompts_leave_nothing_behind(workshop):
    prompts = [row for row in labelled_prompts() if row["safety_label"] == "safe"] + labelled_prompts()[-10:]
    with pytest.raises(InputError, match="96 safe, 10 unsafe"):
        workshop.evaluate("few", prompts=prompts)
    assert not list((workshop.folder / "few" / "artifacts").glob("evaluate/*/manifest.json"))
