"""The tuned model as plain files: what a person loads is what was trained, and the difference is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from jobs.export.merged import PROMPTS, export_merged
from pipeline_common.database import write_rows
from pipeline_common.errors import ConfigError, InputError
from pipeline_common.execution import reuse
from pipeline_common.gpu.merging import last_logits, merge_adapter
from pipeline_common.gpu.models import Placement, load_base
from pipeline_common.prompts import Turn, encode_prompts
from tests.made_stages import publish_stage
from tests.train.made_inputs import conversations

FLOAT = Placement("cpu", torch.float32, "nf4")


@pytest.fixture(scope="module")
def token_ids(tokenizer: Any) -> list[list[int]]:
    return encode_prompts(tokenizer, [[Turn("user", prompt)] for prompt, _ in conversations(12)], "inst")


@pytest.fixture(scope="module")
def merged(undisturbed: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished training of this folder, with the run's record completed, exported."""
    place, plan = undisturbed.prepared.place, undisturbed.prepared.plan
    made = tmp_path_factory.mktemp("evaluate")
    prompts = [
        {"prompt_id": f"p-{number}", "safety_label": ("safe", "unsafe")[number % 2], "text": prompt}
        for number, (prompt, _) in enumerate(conversations(50))
    ]
    write_rows(made / "prompts.jsonl", prompts)
    publish_stage(place, plan, "evaluate", made)
    for name in ("environment", "prepare", "evaluate"):
        reuse(place, plan, plan.stages[name], place.store.read_manifest(plan.stages[name].key))
    target = tmp_path_factory.mktemp("merged") / "model"
    export_merged(place, plan.run_id, target)
    return target


def test_it_loads_as_a_plain_model_and_answers_as_base_and_adapter_do(merged, undisturbed, model_folder, token_ids):
    plain = AutoModelForCausalLM.from_pretrained(merged)
    assert not any("lora" in name for name, _ in plain.named_parameters())
    assert "quantization_config" not in json.loads((merged / "config.json").read_text())
    assert {tensor.dtype for tensor in plain.parameters()} == {torch.float32}
    base = load_base(model_folder, FLOAT)
    without = last_logits(base, token_ids)
    tuned = last_logits(PeftModel.from_pretrained(base, str(undisturbed.folder / "adapter")), token_ids)
    found = last_logits(plain, token_ids)
    assert torch.allclose(found, tuned, atol=1e-4)
    # The fine-tune is in it: further from the base than from base + adapter by far.
    assert float((found - without).abs().mean()) > 100 * float((found - tuned).abs().mean())


def test_the_tokenizer_comes_with_it(merged, tokenizer):
    text = "How do I paint a boat?"
    assert AutoTokenizer.from_pretrained(merged)(text)["input_ids"] == tokenizer(text)["input_ids"]


def test_what_merging_changed_is_written_down(merged, undisturbed):
    facts = json.loads((merged / "merge.json").read_text())
    assert facts["adapter"] == undisturbed.manifest.key
    assert facts["quantization_of_the_base"] == "nf4"
    effect = facts["effect"]
    assert effect["prompts"] == PROMPTS
    assert 0 <= effect["mean_logit_difference"] <= effect["max_logit_difference"] < 1e-3
    assert effect["adapter_logit_change"] > 100 * effect["mean_logit_difference"]
    assert effect["changed_first_tokens"] == 0
    told = (merged / "README.md").read_text()
    assert f"at most {effect['max_logit_difference']:.3g}" in told
    assert "rounded to 4 bits" in told


def test_coarser_arithmetic_shows_in_the_numbers(undisturbed, model_folder, token_ids, tmp_path):
    """bfloat16 has 8 bits of mantissa: a sum of base and adapter is rounded by up to one part in 256."""
    coarse = Placement("cpu", torch.bfloat16, "nf4")
    adapter = undisturbed.folder / "adapter"
    effects = {
        name: merge_adapter(model_folder, adapter, placement, token_ids, tmp_path / name)
        for name, placement in (("fine", FLOAT), ("coarse", coarse))
    }
    assert effects["coarse"].max_logit_difference > 10 * effects["fine"].max_logit_difference
    assert effects["coarse"].prompts == len(token_ids)


def test_nothing_is_overwritten_and_an_unknown_run_is_named(merged, undisturbed, tmp_path):
    place, plan = undisturbed.prepared.place, undisturbed.prepared.plan
    with pytest.raises(ConfigError, match="is there already"):
        export_merged(place, plan.run_id, merged)
    with pytest.raises(InputError, match="holds no run called absent"):
        export_merged(place, "absent", tmp_path / "new")
    assert not (tmp_path / "new").exists()
