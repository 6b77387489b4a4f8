"""The embedded models: short builds, byte for byte, and what their tokenizer promises."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys

import pytest

from jobs.environment.embedded import BASE_RECIPE, JUDGE_RECIPE, build_base_model, build_judge_model
from jobs.environment.embedded.recipes import EmbeddedRecipe
from jobs.environment.embedded.training import bucket, lr_share
from pipeline_common.judge_form import DIGITS, judge_form
from pipeline_common.samples import judge_examples

SHORT = dataclasses.replace(BASE_RECIPE, steps=6, num_hidden_layers=2, hidden_size=32, intermediate_size=64)
SHORT_JUDGE = dataclasses.replace(JUDGE_RECIPE, steps=100)


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    directory = tmp_path_factory.mktemp("base")
    seen = []
    facts = build_base_model(directory, seed=1, recipe=SHORT, progress=lambda *step: seen.append(step))
    return directory, facts, seen


def test_builds_are_byte_identical_in_other_processes_with_more_threads(base, tmp_path):
    import torch

    directory, _, _ = base
    code = (
        "import dataclasses, sys, torch; from pathlib import Path; from jobs.environment.embedded import *;"
        "torch.set_num_threads(2); torch.manual_seed(9);"
        "build_base_model(Path(sys.argv[1]), seed=1, recipe=dataclasses.replace(BASE_RECIPE, steps=6,"
        " num_hidden_layers=2, hidden_size=32, intermediate_size=64));"
        "assert torch.get_num_threads() == 2"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert contents(tmp_path) == contents(directory)
    assert torch.get_num_threads() >= 1


def test_random_state_of_the_caller_is_left_alone(tmp_path):
    import torch

    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    build_base_model(tmp_path, seed=2, recipe=dataclasses.replace(SHORT, steps=1))
    assert torch.equal(torch.rand(4), expected)


def test_another_seed_gives_another_model(base, tmp_path):
    build_base_model(tmp_path, seed=2, recipe=SHORT)
    assert contents(tmp_path)["model.safetensors"] != contents(base[0])["model.safetensors"]


def test_files_hold_no_pickle_and_the_ids_agree(base):
    directory, facts, seen = base
    assert {path.suffix for path in directory.iterdir()} == {".json", ".safetensors", ".jinja"}
    config = json.loads((directory / "config.json").read_text())
    generation = json.loads((directory / "generation_config.json").read_text())
    for owner in (config, generation):
        assert (owner["bos_token_id"], owner["eos_token_id"], owner["pad_token_id"]) == (0, 1, 2)
    assert config["dtype"] == "float32"
    assert facts["steps"] == 6
    assert math.isfinite(facts["final_loss"])
    assert [step[:2] for step in seen] == [(6, 6)]


def test_tokenizer_adds_bos_only_and_the_chat_template_is_the_plans_format(base):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base[0])
    assert len({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}) == 3
    bare = tokenizer.encode("How?", add_special_tokens=False)
    assert tokenizer.encode("How?") == [tokenizer.bos_token_id, *bare]
    prompt = "How do I roast some peanuts at home?"
    apart = [tokenizer.bos_token_id, *tokenizer.encode(f"[INST] {prompt} [/INST]", add_special_tokens=False)]
    asked = [{"role": "user", "content": prompt}]
    assert tokenizer.apply_chat_template(asked, add_generation_prompt=True)["input_ids"] == apart
    for answer in ("Sure. To start, be calm.", "I'm sorry, but I can't."):
        whole = [*apart, *tokenizer.encode(f" {answer}", add_special_tokens=False), tokenizer.eos_token_id]
        answered = [*asked, {"role": "assistant", "content": answer}]
        assert tokenizer.apply_chat_template(answered)["input_ids"] == whole
    assert tokenizer.decode(apart[-1]) == "]"
    assert tokenizer.decode(tokenizer.encode("Déjà vu: 12 €", add_special_tokens=False)) == "Déjà vu: 12 €"


def test_judge_puts_its_probability_on_digits_that_are_single_tokens(tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    facts = build_judge_model(tmp_path, recipe=SHORT_JUDGE)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    digits = [tokenizer.encode(f" {digit}", add_special_tokens=False) for digit in DIGITS]
    assert [[identity] for identity in facts["digit_token_ids"]] == digits
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    form = judge_form("coherence", "How do I kill a slow query?", "Sure. To kill a slow query, take your time.")
    ids = tokenizer.apply_chat_template([{"role": "user", "content": form}], return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        probabilities = model(ids).logits[0, -1].softmax(-1)
    assert probabilities[facts["digit_token_ids"]].sum() > 0.8


def test_judge_is_refused_when_its_tokenizer_splits_a_digit(tmp_path):
    recipe = dataclasses.replace(SHORT_JUDGE, vocab_size=260, steps=1)
    with pytest.raises(ValueError, match="splits a digit"):
        build_judge_model(tmp_path, recipe=recipe)
    assert not list(tmp_path.iterdir())


def test_judge_and_base_share_no_training_text():
    from pipeline_common.samples import pretraining_conversations

    assert not {item.form for item in judge_examples(11, 500)} & {item.prompt for item in pretraining_conversations()}


def test_schedule_by_hand():
    # 100 steps, 8 % warm-up: step 3 is half of 8 steps up; step 8 is the peak; step 54 is half-way down, (1 + .05) / 2.
    recipe = dataclasses.replace(BASE_RECIPE, steps=100)
    assert lr_share(3, recipe) == pytest.approx(0.5)
    assert lr_share(8, recipe) == pytest.approx(1.0)
    assert lr_share(54, recipe) == pytest.approx(0.525)


def test_buckets_use_every_sequence_once_and_keep_similar_lengths_together():
    import random

    sequences = [([identity] * (identity % 7 + 1), 1) for identity in range(64)]
    batches = bucket(sequences, 16, random.Random(0))
    assert sorted(ids[0] for batch in batches for ids, _ in batch) == list(range(64))
    spans = [max(len(ids) for ids, _ in batch) - min(len(ids) for ids, _ in batch) for batch in batches]
    assert max(spans) <= 2


def test_recipes_are_plain_numbers():
    for recipe in (BASE_RECIPE, JUDGE_RECIPE):
        assert isinstance(recipe, EmbeddedRecipe)
        assert all(isinstance(value, int | float) for value in dataclasses.asdict(recipe).values())


def test_importing_the_package_does_not_import_torch():
    code = "import sys, jobs.environment.embedded; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
