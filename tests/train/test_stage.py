"""The stage as the shared main runs it, in this process."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa
import torch
from safetensors import safe_open

from pipeline_common.config import ModelConfig, RuntimeConfig
from pipeline_common.database import read_rows
from pipeline_common.errors import ConfigError
from pipeline_common.gpu.models import attach_adapter, choose_placement, load_base
from pipeline_common.tables import TRAINING_METRICS
from tests.train.conftest import TRAIN_ROWS, VALIDATION_ROWS, Finished, Prepared
from tests.train.made_runs import comparable_rows, facts_of


def test_the_adapter_folder_holds_peft_format_and_nothing_else(undisturbed: Finished, model_folder: Path) -> None:
    names = {path.name for path in (undisturbed.folder / "adapter").iterdir()}
    assert names == {"adapter_model.safetensors", "adapter_config.json", "README.md"}
    config = json.loads((undisturbed.folder / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(model_folder)
    assert config["target_modules"] == sorted(config["target_modules"])
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (16, 32, 0.05)
    with safe_open(undisturbed.folder / "adapter" / "adapter_model.safetensors", framework="pt") as weights:
        assert {weights.get_tensor(name).dtype for name in weights.keys()} == {torch.float32}  # noqa: SIM118


def test_the_adapter_loads_and_changes_the_base(undisturbed: Finished, model_folder: Path) -> None:
    base = load_base(model_folder, choose_placement(ModelConfig(), RuntimeConfig(device="cpu")))
    tuned = attach_adapter(base, undisturbed.folder / "adapter")
    ids = torch.arange(3, 13)[None]
    with torch.no_grad():
        after = tuned(input_ids=ids).logits
        with tuned.disable_adapter():
            before = tuned(input_ids=ids).logits
    assert (after - before).abs().max() > 1e-3


def test_the_facts_count_rows_tokens_and_steps(undisturbed: Finished, train_table: pa.Table) -> None:
    facts = facts_of(undisturbed)
    tokens = sum(len(ids) for ids in train_table["input_ids"].to_pylist())
    assert (facts["train_rows"], facts["validation_rows"]) == (TRAIN_ROWS, VALIDATION_ROWS)
    assert facts["train_tokens"] == tokens
    assert facts["train_answer_tokens"] == tokens - sum(train_table["prompt_length"].to_pylist())
    # 90 rows / 4 = 23 batches, / 2 = 12 steps an epoch; 16 steps = 1 epoch and 4 steps of 2 batches
    assert (facts["steps"], facts["steps_per_epoch"]) == (16, 12)
    assert facts["effective_epochs"] == pytest.approx(1 + 8 / 23)
    assert facts["ended_by_max_steps"]
    assert facts["quantization"] == "nf4"
    # On the CPU, auto is plain TRL.
    assert (facts["engine_requested"], facts["engine"], facts["tokens_per_batch"]) == ("auto", "plain", None)
    # r 16 x (in + out) over 2 layers: q, o 64+64; k, v 64+32; gate, up 64+128; down 128+64
    assert facts["trainable_parameters"] == 2 * 16 * (2 * 128 + 2 * 96 + 3 * 192)
    assert facts["lora"]["target_modules"] == [
        "down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"
    ]  # fmt: skip


def test_it_learns(undisturbed: Finished) -> None:
    facts = facts_of(undisturbed)
    # Random weights start at ln 384 = 5.95 nats per token.
    assert facts["first_train_loss"] == pytest.approx(5.95, abs=0.1)
    assert facts["final_train_loss"] < facts["first_train_loss"] - 0.2
    assert facts["validation_loss"] < facts["first_train_loss"] - 0.2


def test_metrics_are_in_file_and_database(undisturbed: Finished) -> None:
    rows = list(read_rows(undisturbed.folder / "training_metrics.jsonl"))
    assert [row["step"] for row in rows if row["split"] == "train"] == list(range(1, 17))
    (validation,) = [row for row in rows if row["split"] == "validation"]
    assert (validation["step"], validation["loss"]) == (16, facts_of(undisturbed)["validation_loss"])
    assert rows[15]["epoch"] == pytest.approx(facts_of(undisturbed)["effective_epochs"])
    query = sa.select(TRAINING_METRICS).order_by(TRAINING_METRICS.c.split, TRAINING_METRICS.c.step)
    stored = undisturbed.prepared.place.database.select(query)
    for row in stored:
        assert row.pop("run_id") == undisturbed.prepared.plan.run_id
    assert stored == rows


def test_the_model_card_names_no_path_of_this_machine_but_the_configured_base(
    undisturbed: Finished, model_folder: Path
) -> None:
    card = (undisturbed.folder / "adapter" / "README.md").read_text()
    assert "sample:alignment-healthy" in card
    assert not re.findall(r"/(?:tmp|home|root)/", card.replace(str(model_folder), ""))


def test_the_same_bytes_with_two_threads_evaluations_and_sparse_logging(
    undisturbed: Finished, prepare_run: Callable[..., Prepared]
) -> None:
    again = prepare_run("runtime.threads=2", "train.eval_steps=6", "train.logging_steps=3").train()
    weights = "adapter/adapter_model.safetensors"
    assert again.adapter_digests()[weights] == undisturbed.adapter_digests()[weights]
    rows = list(read_rows(again.folder / "training_metrics.jsonl"))
    assert [row["step"] for row in rows if row["split"] == "train"] == [3, 6, 9, 12, 15, 16]
    assert [row["step"] for row in rows if row["split"] == "validation"] == [6, 12, 16]


def test_a_finished_checkpoint_is_not_trained_again(
    undisturbed: Finished, prepare_run: Callable[..., Prepared]
) -> None:
    """Killed after the last checkpoint: here by a file in the way of the adapter."""
    prepared = prepare_run()
    blocker = prepared.checkpoints.parent / "files" / "adapter"

    from jobs.train.stage import run
    from pipeline_common.execution import run_stage

    def run_with_a_file_in_the_way(context: Any) -> Any:
        blocker.write_text("in the way")
        return run(context)

    with pytest.raises(ValueError, match="adapter"):
        run_stage(prepared.place, prepared.plan, prepared.planned, run_with_a_file_in_the_way, force=False)
    assert sorted(path.name for path in prepared.checkpoints.iterdir()) == ["checkpoint-12", "checkpoint-16"]
    finished = prepared.train()
    assert finished.adapter_digests() == undisturbed.adapter_digests()
    assert facts_of(finished)["resumed_from_step"] == 16
    assert facts_of(finished)["validation_loss"] == facts_of(undisturbed)["validation_loss"]
    assert comparable_rows(finished) == comparable_rows(undisturbed)


def test_the_settings_for_a_gpu_also_run_here(prepare_run: Callable[..., Prepared]) -> None:
    run = prepare_run(
        "model.compute_dtype=bfloat16",
        "train.optimizer=paged_adamw_32bit",
        "train.activation_checkpointing=true",
        "train.schedule=constant",
        "train.max_steps=3",
    ).train()
    assert facts_of(run)["compute_dtype"] == "bfloat16"
    assert facts_of(run)["final_train_loss"] < 6.5


def test_divergence_is_an_error_and_leaves_no_artifact(prepare_run: Callable[..., Prepared]) -> None:
    prepared = prepare_run("train.learning_rate=1e30", "train.warmup_fraction=0")
    with pytest.raises(ConfigError, match=r"lower train\.learning_rate"):
        prepared.train()
    assert prepared.place.store.read_manifest(prepared.planned.key) is None


def test_what_is_spent_on_kernels_has_a_phase_of_its_own(prepare_run: Callable[..., Prepared]) -> None:
    done = prepare_run("train.engine=flat", "train.max_steps=1").train()
    kinds = {one["phase"]: one["kind"] for one in done.manifest.provenance["phases"]}
    assert [name for name, kind in kinds.items() if kind == "compile"] == [
        "trying the kernels",
        "choosing the size of a pass",
    ]
    assert kinds["training"] == "compute"
