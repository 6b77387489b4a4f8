"""QLoRA with TRL's SFTTrainer, read from top to bottom.

    base (4-bit, frozen) -> LoRA adapters (float32) -> loss on the answers -> checkpoints -> evaluation loss -> adapter

`recipe` says what goes in, `building` makes the trainer.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from peft import set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import TrainerState

from jobs.train.building import build_trainer
from jobs.train.callbacks import StepWatcher, Watch
from jobs.train.checkpoints import Checkpoint, newest_complete
from jobs.train.flat import FlatTrainer
from jobs.train.flat_setup import make_flat
from jobs.train.metrics import MetricsWriter
from jobs.train.recipe import Recipe, describe_arithmetic
from jobs.train.trainer import AnswerTrainer
from pipeline_common.errors import TerminatedError, TransientError
from pipeline_common.gpu.models import ADAPTER_WEIGHTS
from pipeline_common.logs import get_logger
from pipeline_common.progress import track

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from jobs.train.batch_plan import BatchPlan
    from pipeline_common.termination import StopSignal

_log = get_logger(__name__)


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
    recorded_sizes: int | None
    """Passes replayed CUDA graphs of so many sizes; None where their kernels were started one by one."""


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
        recorded_sizes=_count_recorded(trainer),
    )


def _count_recorded(trainer: AnswerTrainer) -> int | None:
    recorded = trainer.recorded if isinstance(trainer, FlatTrainer) else None
    return None if recorded is None else recorded.recorded


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


def restore_finished(trainer: AnswerTrainer, checkpoint: Checkpoint, watcher: StepWatcher | None) -> None:
    """Put a checkpoint of the last step into the trainer: nothing is left to train."""
    trainer.state = TrainerState.load_from_json(str(checkpoint.folder / "trainer_state.json"))
    set_peft_model_state_dict(trainer.model, load_file(checkpoint.folder / ADAPTER_WEIGHTS))
    if watcher is not None:
        watcher.restart(trainer.state.log_history)
