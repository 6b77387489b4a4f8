"""What the stage cannot measure: it says so by name, and leaves nothing half done."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pipeline_common.errors import InputError
from tests.evaluate.made_models import build_adapter, labelled_prompts
from tests.evaluate.workshop import Workshop, read_lines, read_measures


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
