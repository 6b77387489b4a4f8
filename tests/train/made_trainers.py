"""Trainers of either engine over a table of rows, as the stage would build them."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from jobs.train.building import build_trainer
from jobs.train.callbacks import StepWatcher, Watch
from jobs.train.engine import choose_engine
from jobs.train.flat import FlatTrainer
from jobs.train.flat_setup import make_flat
from jobs.train.metrics import MetricsWriter
from jobs.train.recipe import Recipe
from jobs.train.rows import LabelledRows
from jobs.train.schedule import plan_steps
from pipeline_common.config import TrainConfig
from pipeline_common.gpu.models import Placement, load_base
from pipeline_common.progress import track
from pipeline_common.termination import StopSignal

# 90 rows are 12 steps an epoch, so 16 steps cross an epoch's end, with a short last step.
STEPS = 16
SETTINGS = TrainConfig(
    batch_size=4, gradient_accumulation=2, max_steps=STEPS, learning_rate=2e-3, lora_dropout=0.0, tokens_per_batch=100
)


class Build(Protocol):
    """Makes a trainer: engine, where, and changes of `SETTINGS`."""

    def __call__(self, name: str, device: str = "cpu", quantization: str = "nf4", **changes: Any) -> Any: ...


@dataclass(frozen=True)
class TrainerMaker:
    """What trainers are made from."""

    model_folder: Path
    tokenizer: Any
    train_rows: LabelledRows
    validation_rows: LabelledRows
    folder: Path
    stack: ExitStack

    def recipe(self, name: str, device: str = "cpu", quantization: str = "nf4", **changes: Any) -> Recipe:
        """The recipe of one trainer."""
        train = SETTINGS.model_copy(update={"engine": name, **changes})
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        placement = Placement(device, dtype, quantization)  # type: ignore[arg-type]
        missing: list[str] = []
        engine = choose_engine(train, placement, lambda *why: missing.extend(why))
        assert not missing
        return Recipe(
            train=train,
            placement=placement,
            optimizer="adamw_torch",
            schedule=plan_steps(self.train_rows.count, train),
            train_rows=self.train_rows,
            validation_rows=self.validation_rows,
            checkpoints=self.folder / name / "checkpoints",
            engine=engine,
        )

    def __call__(self, name: str, device: str = "cpu", quantization: str = "nf4", **changes: Any) -> Any:
        """The trainer, ready to train."""
        recipe = self.recipe(name, device, quantization, **changes)
        advance = self.stack.enter_context(track("training", STEPS))
        writer = MetricsWriter(self.folder / "metrics.jsonl", lambda _: None)
        watch = Watch(STEPS, 1, None, {}, writer, StopSignal(), advance)
        torch.manual_seed(0)
        base = load_base(self.model_folder, recipe.placement)
        trainer = build_trainer(base, self.tokenizer, recipe, StepWatcher(watch))
        if isinstance(trainer, FlatTrainer):
            trainer.plan = make_flat(trainer, recipe)
        return trainer


def losses(trainer: Any) -> list[float]:
    """Train; every step's loss."""
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
