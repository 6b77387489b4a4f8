"""A base model that could be trained, but not measured, is refused first."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from transformers import GPT2Config, LlamaConfig

from pipeline_common.errors import InputError
from pipeline_common.gpu.trunk import require_trunk
from pipeline_common.stages import REPOSITORY

SMALL = {"vocab_size": 64, "bos_token_id": 1, "eos_token_id": 2}


def test_a_llama_is_taken_and_needs_no_weights(tmp_path):
    LlamaConfig(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, **SMALL).save_pretrained(tmp_path)
    require_trunk(tmp_path)


def test_what_transformers_does_not_know_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "made-by-hand"}')
    with pytest.raises(InputError, match="no causal language model that can be loaded"):
        require_trunk(tmp_path)


def test_a_trunk_of_another_shape_ends_the_run_before_anything_is_trained(tmp_path):
    GPT2Config(n_embd=8, n_layer=1, n_head=2, **SMALL).save_pretrained(model := tmp_path / "model")
    (model / "model.safetensors").touch()
    settings = [f"model.base={model}", "evaluate.judge.kind=none", f"runtime.output_dir={tmp_path}/out"]
    done = subprocess.run(
        [sys.executable, "-m", "jobs.environment", "--config", "tiny", *settings],
        cwd=REPOSITORY,
        env={name: value for name, value in os.environ.items() if name not in {"ARTIFACTS_URI", "DATABASE_URL"}},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert "GPT2LMHeadModel: expected a trunk with `layers` and `norm`" in done.stderr
    assert "Traceback" not in done.stderr
