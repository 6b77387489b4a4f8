"""The recipe: QLoRA with TRL's SFTTrainer, read from top to bottom.

    base (4-bit, frozen) -> LoRA adapters (float32) -> loss on the answers -> checkpoints -> evaluation loss -> adapter

Legend: R rows, B rows of a batch, T tokens of the longest of them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from datasets import Dataset
from datasets.table import InMemoryTable
from peft import LoraConfig, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import PrinterCallback, TrainerState
from trl import SFTConfig

from jobs.train.callbacks import StepWatcher, Watch
from jobs.train.checkpoints import Checkpoint, newest_complete
from jobs.train.engine import PLAIN, Engine, prepare_base
from jobs.train.flat import FlatTrainer, collate
from jobs.train.flat_setup import make_flat
from jobs.train.metrics import MetricsWriter
from jobs.train.rows import LabelledRows, sort_by_length
from jobs.train.shares import count_passes
from jobs.train.trainer import AnswerTrainer
from pipeline_common.clock import PhaseClock
from pipeline_common.errors import ConfigError, TerminatedError, TransientError
from pipeline_common.gpu.models import ADAPTER_WEIGHTS
from pipeline_common.logs import get_logger
from pipeline_common.progress import track

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import TrainerCallback

    from jobs.train.batch_plan import BatchPlan
    from jobs.train.checkpoint_copies import CheckpointCopies
    from jobs.train.distributed import Team
    from jobs.train.schedule import Schedule
    from pipeline_common.config import TrainConfig
    from pipeline_common.gpu.models import Placement
    from pipeline_common.termination import StopSignal

_SCHEDULERS: Final = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}
# Evaluation keeps no activations, so it fits more rows than a training batch.
_MIN_EVAL_BATCH: Final = 8
# The flat engine cuts these by tokens.
_FLAT_EVAL_ROWS: Final = 64
_log = get_logger(__name__)


@dataclass(frozen=True)
class Recipe:
    """Everything one fine-tune is made from."""

    train: TrainConfig
    placement: Placement
    optimizer: str
    schedule: Schedule
    train_rows: LabelledRows
    validation_rows: LabelledRows
    checkpoints: Path
    copies: CheckpointCopies | None = None
    """Where checkpoints go besides; None where this machine's disk is safe enough."""
    engine: Engine = PLAIN
    on_less_memory: Callable[[str], None] = _log.warning
    """Told once, if the flat engine had to halve its passes."""
    team: Team | None = None
    """The processes that train together; None when this one trains alone."""
    clock: PhaseClock = field(default_factory=PhaseClock)
    """Where the seconds go."""

    @property
    def processes(self) -> int:
        """How many train together."""
        return 1 if self.team is None else self.team.place.processes


@dataclass(frozen=True)
class Trained:
    """What came out."""

    model: Any
    """A PeftModel with float32 adapters."""
    log: list[dict[str, Any]]
    """The trainer's log of every step, over all attempts."""
    validation_loss: float
    """Mean negative log-likelihood per answer token at the end, nats."""
    resumed_from: int | None
    """Step of the checkpoint this attempt went on from."""
    trainable_parameters: int
    all_parameters: int
    plan: BatchPlan | None
    """The flat engine's passes; None with the plain engine."""
    activation_checkpointing: bool
    """What was done, in either engine."""


def fine_tune(base: Any, tokenizer: Any, recipe: Recipe, writer: MetricsWriter | None, stop: StopSignal) -> Trained:
    """Train a LoRA adapter on a frozen base, going on from the newest complete checkpoint if there is one.

    Args:
        base: the frozen base model; it is wrapped in place.
        tokenizer: its tokenizer.
        recipe: rows, settings, and where checkpoints live.
        writer: takes the metrics; None in a process that follows another.
        stop: SIGTERM; inside, it is obeyed at the end of a step.

    Returns:
        The trained model and its log.

    Raises:
        TerminatedError: SIGTERM; a checkpoint was saved.
        ConfigError: the loss diverged, or the settings do not fit the model.
        TransientError: the GPU's memory does not suffice.
    """
    steps = recipe.schedule.steps
    made_by = describe_arithmetic(recipe)
    if recipe.team is not None:
        recipe.team.meet(recipe.placement.device, {**made_by, "tokens": recipe.train_rows.tokens})
    checkpoint = _find_checkpoint(recipe, made_by, leads=writer is not None)
    with ExitStack() as stack:
        stack.enter_context(stop.deferred())
        watchers: list[TrainerCallback] = []
        if recipe.team is not None:
            from jobs.train.distributed_trainer import TeamWatcher

            watchers.append(TeamWatcher(recipe.team, recipe, stop))
        watcher = None
        if writer is not None:
            advance = stack.enter_context(track("training", steps))
            watcher = StepWatcher(
                Watch(
                    steps=steps,
                    logging_steps=recipe.train.logging_steps,
                    eval_steps=recipe.train.eval_steps,
                    made_by=made_by,
                    copies=recipe.copies,
                    writer=writer,
                    stop=stop,
                    advance=advance,
                )
            )
            watchers.append(watcher)
        plan = None
        try:
            trainer = build_trainer(base, tokenizer, recipe, *watchers)
            if isinstance(trainer, FlatTrainer):
                plan = make_flat(trainer, recipe)
            if checkpoint is not None:
                _log.info("resuming from the checkpoint after step %d of %d", checkpoint.step, steps)
            if checkpoint is not None and checkpoint.step >= steps:
                # Handed to train(), a finished checkpoint would be trained for one more step.
                restore_finished(trainer, checkpoint, watcher)
            else:
                trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint.folder))
            if trainer.state.global_step < steps:
                raise TerminatedError(
                    f"stopped by SIGTERM after step {trainer.state.global_step} of {steps}; the state is saved, the "
                    "same command goes on from there"
                )
            validation_loss = float(trainer.evaluate()["eval_loss"])
        except torch.cuda.OutOfMemoryError as error:
            raise TransientError(
                "the GPU's memory does not suffice for this training "
                f"({str(error).splitlines()[0][:200]}); {_knobs(recipe)}, set train.activation_checkpointing=true, or "
                "lower prepare.max_length"
            ) from error
    trainable, everything = trainer.model.get_nb_trainable_parameters()
    return Trained(
        model=trainer.model,
        log=list(trainer.state.log_history),
        validation_loss=validation_loss,
        resumed_from=None if checkpoint is None else checkpoint.step,
        trainable_parameters=int(trainable),
        all_parameters=int(everything),
        plan=plan,
        activation_checkpointing=plan.activation_checkpointing if plan else trainer.args.gradient_checkpointing,
    )


def _find_checkpoint(recipe: Recipe, made_by: dict[str, str], *, leads: bool) -> Checkpoint | None:
    """What is gone on from: process 0 looks, the others are told."""
    found = None
    if leads:
        if recipe.copies is not None:
            recipe.copies.restore(recipe.checkpoints, made_by)
        found = newest_complete(recipe.checkpoints, made_by)
    if recipe.team is None:
        return found
    from jobs.train.distributed_trainer import share_checkpoint

    return share_checkpoint(recipe.team, found, recipe.checkpoints)


def _knobs(recipe: Recipe) -> str:
    if recipe.engine.name == "flat":
        return "lower train.tokens_per_batch"
    return "lower train.batch_size (and raise train.gradient_accumulation)"


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


def restore_finished(trainer: AnswerTrainer, checkpoint: Checkpoint, watcher: StepWatcher | None) -> None:
    """Put a checkpoint of the last step into the trainer: nothing is left to train."""
    trainer.state = TrainerState.load_from_json(str(checkpoint.folder / "trainer_state.json"))
    set_peft_model_state_dict(trainer.model, load_file(checkpoint.folder / ADAPTER_WEIGHTS))
    if watcher is not None:
        watcher.restart(trainer.state.log_history)


def describe_arithmetic(recipe: Recipe) -> dict[str, str]:
    """What two attempts must share for one to go on from the other's checkpoint."""
    placement = recipe.placement
    return {
        "device": placement.device,
        "compute_dtype": str(placement.compute_dtype).removeprefix("torch."),
        "quantization": placement.quantization,
        "optimizer": recipe.optimizer,
        "engine": recipe.engine.name,
        "torch": str(torch.__version__),
    }


def _dataset(table: pa.Table) -> Dataset:
    return Dataset(InMemoryTable(table))
