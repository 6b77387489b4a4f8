"""The trainer that a recipe asks for, with its settings: adapters on the frozen base, nothing trained yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
from datasets import Dataset
from datasets.table import InMemoryTable
from peft import LoraConfig
from transformers import PrinterCallback
from trl import SFTConfig

from jobs.train.engine import prepare_base
from jobs.train.flat import FlatTrainer, collate
from jobs.train.recipe import Recipe
from jobs.train.rows import sort_by_length
from jobs.train.shares import count_passes
from jobs.train.trainer import AnswerTrainer
from pipeline_common.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import TrainerCallback

_SCHEDULERS: Final = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}
# Evaluation keeps no activations, so it fits more rows than a training batch.
_MIN_EVAL_BATCH: Final = 8
# The flat engine cuts these by tokens.
_FLAT_EVAL_ROWS: Final = 64


def build_trainer(base: Any, tokenizer: Any, recipe: Recipe, *watchers: TrainerCallback) -> AnswerTrainer:
    """The trainer, ready to go: adapters on every chosen projection, in float32.

    Raises:
        ConfigError: `train.target_modules` names nothing in the model.
    """
    train = recipe.train
    modules = train.target_modules if train.target_modules == "all-linear" else sorted(train.target_modules)
    lora = LoraConfig(
        r=train.lora_r,
        lora_alpha=train.lora_alpha,
        lora_dropout=train.lora_dropout,
        target_modules=modules,
        bias="none",
        task_type="CAUSAL_LM",
    )
    flat = recipe.engine.name == "flat"
    prepare_base(base, recipe.engine)
    try:
        trainer = _trainer_class(recipe)(
            model=base,
            args=build_arguments(recipe),
            train_dataset=_dataset(recipe.train_rows.table),
            eval_dataset=_dataset(sort_by_length(recipe.validation_rows.table)),
            processing_class=tokenizer,
            peft_config=lora,
            data_collator=collate if flat else None,
            callbacks=list(watchers),
        )
    except ValueError as error:
        # Other ValueErrors of the libraries are not about this setting.
        if "arget modules" not in str(error) and "lm_head" not in str(error):
            raise
        raise ConfigError(f"train.target_modules={list(modules)} does not fit the base model: {error}") from error
    trainer.remove_callback(PrinterCallback)
    # TRL rounds the adapters of a quantised base to bfloat16, and a resumed run would reload them in float32: small
    # updates would be lost and a resume would not be exact.
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    if recipe.team is not None:
        from jobs.train.distributed_trainer import make_shared

        make_shared(trainer, recipe.team)
        if recipe.train.sharding == "full":
            from jobs.train.distributed_base import shard_base

            shard_base(trainer, recipe.team, recipe.placement.device)
    return trainer


def _trainer_class(recipe: Recipe) -> type[AnswerTrainer]:
    flat = recipe.engine.name == "flat"
    if recipe.team is None:
        return FlatTrainer if flat else AnswerTrainer
    if recipe.train.sharding == "full":
        from jobs.train.distributed_base import ShardedTrainer

        return ShardedTrainer
    from jobs.train.distributed_trainer import TeamFlatTrainer, TeamTrainer

    return TeamFlatTrainer if flat else TeamTrainer


def build_arguments(recipe: Recipe) -> SFTConfig:
    """The trainer's settings.

    Raises:
        ConfigError: bfloat16 on a GPU that has none.
    """
    train, cuda = recipe.train, recipe.placement.device == "cuda"
    autocast = cuda and recipe.placement.compute_dtype == torch.bfloat16
    if autocast and not torch.cuda.is_bf16_supported():
        raise ConfigError(
            f"model.compute_dtype=bfloat16, but {torch.cuda.get_device_name()} has no bfloat16; use "
            "model.compute_dtype=float32"
        )
    flat = recipe.engine.name == "flat"
    # The plain engine does not look at memory: on a GPU it takes the way that fits more cards.
    checkpointing = cuda if train.activation_checkpointing == "auto" else train.activation_checkpointing
    checkpointing = checkpointing and not flat  # the flat engine decides when it has seen the memory
    rows = train.batch_size * train.gradient_accumulation
    # The flat engine takes a step's rows at once and cuts them itself.
    passes = 1 if flat else train.gradient_accumulation
    shared: dict[str, Any] = {}
    if recipe.team is not None:
        # Every process reads the rows of all, and takes its share of them.
        passes = 1 if flat else count_passes(train, recipe.processes)
        shared = {
            "ddp_backend": recipe.team.backend,
            "ddp_find_unused_parameters": False,
            "ddp_broadcast_buffers": False,
        }
    arguments = SFTConfig(
        output_dir=str(recipe.checkpoints),
        max_steps=recipe.schedule.steps,
        per_device_train_batch_size=rows // passes,
        per_device_eval_batch_size=_FLAT_EVAL_ROWS if flat else max(_MIN_EVAL_BATCH, train.batch_size),
        gradient_accumulation_steps=passes,
        learning_rate=train.learning_rate,
        lr_scheduler_type=_SCHEDULERS[train.schedule],
        warmup_steps=recipe.schedule.warmup_steps,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        optim=recipe.optimizer,
        seed=train.seed,
        data_seed=train.seed,
        # Rows come tokenised, cut and labelled: nothing may be prepared again, and nothing truncated.
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        packing=False,
        # Every step is logged, so that metrics do not depend on where a checkpoint falls; rows are thinned out later.
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=train.save_steps,
        save_total_limit=None,
        eval_strategy="no",
        report_to=list(train.report_to) or "none",
        disable_tqdm=True,
        bf16=autocast,
        use_cpu=not cuda,
        dataloader_pin_memory=cuda,
        # Both names, because TRL switches the older one on by default.
        activation_checkpointing=checkpointing,
        gradient_checkpointing=checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if checkpointing else None,
        **shared,
    )
    if cuda:
        # One process trains on one GPU; the trainer would refuse a machine that shows it several.
        arguments._n_gpu = 1
    return arguments


def _dataset(table: pa.Table) -> Dataset:
    return Dataset(InMemoryTable(table))
