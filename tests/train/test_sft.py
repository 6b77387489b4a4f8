"""The trainer as we set it up, asked for what it really feeds and computes."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import PrinterCallback

from jobs.train.building import build_arguments, build_trainer
from jobs.train.callbacks import StepWatcher, Watch, check_finite
from jobs.train.metrics import MetricsWriter
from jobs.train.recipe import Recipe
from jobs.train.rows import read_rows
from jobs.train.schedule import plan_steps
from pipeline_common.config import TrainConfig
from pipeline_common.errors import ConfigError
from pipeline_common.gpu.models import Placement, load_base
from pipeline_common.progress import track
from pipeline_common.termination import StopSignal

SETTINGS = TrainConfig(batch_size=4, gradient_accumulation=2, max_steps=4, learning_rate=2e-3)


@pytest.fixture
def recipe(train_table: pa.Table, validation_table: pa.Table, tmp_path: Path) -> Recipe:
    rows = []
    for name, table in (("train", train_table), ("validation", validation_table)):
        pq.write_table(table, tmp_path / f"{name}.parquet")
        rows.append(read_rows(tmp_path / f"{name}.parquet", vocabulary=384, positions=128))
    return Recipe(
        train=SETTINGS,
        placement=Placement("cpu", torch.float32, "nf4"),
        optimizer="adamw_torch",
        schedule=plan_steps(rows[0].count, SETTINGS),
        train_rows=rows[0],
        validation_rows=rows[1],
        checkpoints=tmp_path / "checkpoints",
    )


@pytest.fixture
def trainer(recipe: Recipe, model_folder: Path, tokenizer: Any, tmp_path: Path) -> Iterator[Any]:
    with track("training", 4) as advance:
        writer = MetricsWriter(tmp_path / "metrics.jsonl", lambda _: None)
        watch = Watch(4, 1, None, {}, writer, StopSignal(), advance)
        yield build_trainer(load_base(model_folder, recipe.placement), tokenizer, recipe, StepWatcher(watch))


def test_every_answer_is_in_the_loss_and_nothing_else(trainer: Any, train_table: pa.Table) -> None:
    """What the trainer's own loader and collator hand to the model, over one whole epoch."""
    expected = Counter(
        (tuple(ids), tuple(ids[length:]))
        for ids, length in zip(
            train_table["input_ids"].to_pylist(), train_table["prompt_length"].to_pylist(), strict=True
        )
    )
    found: Counter[tuple[tuple[int, ...], tuple[int, ...]]] = Counter()
    for batch in trainer.get_train_dataloader():
        for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True):
            assert torch.equal(labels[labels != -100], ids[labels != -100])
            found[tuple(ids[mask == 1].tolist()), tuple(labels[labels != -100].tolist())] += 1
    assert found == expected
    assert all(answer[-1] == trainer.processing_class.eos_token_id for _, answer in found)


def test_adapters_are_float32_on_a_four_bit_base(trainer: Any) -> None:
    trained = {name: tensor for name, tensor in trainer.model.named_parameters() if tensor.requires_grad}
    # 7 projections x 2 layers x (A, B)
    assert len(trained) == 28
    assert {tensor.dtype for tensor in trained.values()} == {torch.float32}
    assert type(trainer.model.base_model.model.model.layers[0].mlp.up_proj.base_layer).__name__ == "Linear4bit"


def test_evaluation_loss_is_the_mean_over_answer_tokens(trainer: Any, validation_table: pa.Table) -> None:
    """Against plain cross-entropy, row by row, without a batch or padding."""
    nats, tokens = 0.0, 0
    trainer.model.eval()
    for ids, length in zip(
        validation_table["input_ids"].to_pylist(), validation_table["prompt_length"].to_pylist(), strict=True
    ):
        with torch.no_grad():
            logits = trainer.model(input_ids=torch.tensor([ids])).logits[0]
        answer = torch.tensor(ids[length:])
        nats += float(torch.nn.functional.cross_entropy(logits[length - 1 : -1], answer, reduction="sum"))
        tokens += len(answer)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(nats / tokens, rel=1e-5)


def test_evaluation_leaves_the_random_numbers_alone(trainer: Any) -> None:
    before = torch.get_rng_state()
    trainer.evaluate()
    assert torch.equal(torch.get_rng_state(), before)


def test_evaluation_leaves_the_four_bit_base_alone(trainer: Any) -> None:
    """On processors with AVX512-BF16 bitsandbytes would repack it, and training would go on without gradients."""

    def state() -> list[tuple[str, bytes, bool]]:
        return [
            (name, tensor.detach().contiguous().view(torch.uint8).numpy().tobytes(), tensor.quant_state.nested)
            for name, tensor in trainer.model.named_parameters()
            if hasattr(tensor, "quant_state")
        ]

    before = state()
    assert len(before) == 14
    trainer.evaluate()
    assert state() == before


def test_the_trainer_prints_nothing(trainer: Any) -> None:
    assert not any(isinstance(callback, PrinterCallback) for callback in trainer.callback_handler.callbacks)


def test_the_scheduled_steps_are_the_trainers(trainer: Any, recipe: Recipe) -> None:
    values = trainer.set_initial_training_values(trainer.args, trainer.get_train_dataloader())
    assert (values[1], values[5], values[6]) == (
        recipe.schedule.steps_per_epoch,
        recipe.schedule.batches_per_epoch,
        recipe.schedule.steps,
    )


def test_modules_that_do_not_exist(recipe: Recipe, model_folder: Path, tokenizer: Any) -> None:
    odd = dataclasses.replace(recipe, train=SETTINGS.model_copy(update={"target_modules": ("qkv_proj",)}))
    base = load_base(model_folder, recipe.placement)
    with pytest.raises(ConfigError, match=r"target_modules=\['qkv_proj'\]"):
        build_trainer(base, tokenizer, odd, StepWatcher(Watch(4, 1, None, {}, None, StopSignal(), None)))  # type: ignore[arg-type]


@pytest.mark.parametrize("checkpointing", [True, False])
def test_activation_checkpointing_is_as_configured(recipe: Recipe, checkpointing: bool) -> None:
    train = SETTINGS.model_copy(update={"activation_checkpointing": checkpointing})
    arguments = build_arguments(dataclasses.replace(recipe, train=train))
    assert arguments.activation_checkpointing is checkpointing
    assert arguments.max_length is None
    assert arguments.use_cpu
    assert not arguments.bf16


@pytest.mark.parametrize("name", ["loss", "grad_norm"])
def test_divergence_names_step_and_rate(name: str) -> None:
    entry = {"loss": 1.0, "grad_norm": 1.0, "learning_rate": 0.5, "step": 7, name: float("nan")}
    with pytest.raises(ConfigError, match=r"nan at step 7 \(learning rate 0\.5\).*lower train\.learning_rate"):
        check_finite(entry)
