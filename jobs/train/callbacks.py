"""What happens around the trainer's steps: metrics, checkpoints that count, SIGTERM, a loss that is a number."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from jobs.train.checkpoints import mark_complete, prune
from jobs.train.metrics import MetricsWriter, RowBuilder
from pipeline_common.errors import ConfigError, TerminatedError

if TYPE_CHECKING:
    from jobs.train.checkpoint_copies import CheckpointCopies
    from pipeline_common.progress import Advance
    from pipeline_common.termination import StopSignal


@dataclass(frozen=True)
class Watch:
    """What the callback needs to know of the run."""

    steps: int
    logging_steps: int
    eval_steps: int | None
    made_by: Mapping[str, Any]
    """Device and arithmetic, for the checkpoints' markers."""
    writer: MetricsWriter
    stop: StopSignal
    advance: Advance
    copies: CheckpointCopies | None = None


class StepWatcher(TrainerCallback):  # type: ignore[misc]  # the library is untyped
    """Follows one training run, step by step.

    The trainer logs every step. Tokens and seconds of the step are added to its log entry, and the trainer keeps its
    log in each checkpoint: so they outlive a kill.
    """

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._rows = RowBuilder(watch.logging_steps, watch.steps)
        self._tokens_before = 0
        self._since = time.perf_counter()
        self._worked = 0
        self._worked_s = 0.0

    def restart(self, log: list[dict[str, Any]]) -> None:
        """Begin with what a checkpoint's log says (nothing in a first attempt)."""
        self._watch.writer.restart([row for entry in log if (row := self._rows.add(entry)) is not None])

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Take up the rows of the steps before the checkpoint."""
        self.restart(state.log_history)
        self._since = time.perf_counter()

    def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask for an evaluation where one is due; after SIGTERM, for a checkpoint and the end."""
        watch = self._watch
        if is_evaluation_due(state.global_step, watch.eval_steps, watch.steps):
            control.should_evaluate = True
        if watch.stop.requested:
            end_after_this_step(control)

    def on_log(self, _args: Any, state: Any, _control: Any, logs: dict[str, Any], **_: Any) -> None:
        """Check the numbers of the step, complete its log entry, write its row.

        Raises:
            ConfigError: the loss or the gradient is not a finite number.
        """
        entry = state.log_history[-1]
        if "loss" in logs:
            check_finite(entry)
            now = time.perf_counter()
            entry["tokens"] = int(logs["num_tokens"]) - self._tokens_before
            entry["seconds"] = now - self._since
            self._tokens_before = int(logs["num_tokens"])
            self._since = now
            # Over all steps of this attempt: one alone is noise.
            self._worked += entry["tokens"]
            self._worked_s += entry["seconds"]
            pace = self._worked / max(self._worked_s, 1e-9)
            self._watch.advance(state.global_step, loss=float(logs["loss"]), tokens_per_second=pace)
        row = self._rows.add(entry)
        if row is not None:
            self._watch.writer.add(row)

    def on_prediction_step(self, _args: Any, _state: Any, _control: Any, **_: Any) -> None:
        """Leave a long evaluation at once after SIGTERM.

        Raises:
            TerminatedError: SIGTERM has arrived; the last checkpoint stands.
        """
        leave_evaluation(self._watch.stop)

    def on_evaluate(self, _args: Any, _state: Any, _control: Any, **_: Any) -> None:
        """Leave the evaluation's time out of the training speed."""
        self._since = time.perf_counter()

    def on_save(self, args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Declare the checkpoint complete, and only then drop older ones."""
        root = Path(args.output_dir)
        folder = root / f"checkpoint-{state.global_step}"
        mark_complete(folder, self._watch.made_by)
        if self._watch.copies is not None:
            self._watch.copies.save(folder, self._watch.made_by)
        prune(root)
        self._since = time.perf_counter()


def is_evaluation_due(step: int, every: int | None, steps: int) -> bool:
    """Whether the validation rows are read after this step.

    The evaluation at the end is done after the last checkpoint, so that a kill in it costs no step.

    Args:
        step: optimizer steps done.
        every: `train.eval_steps`; None = only at the end.
        steps: of the whole training.
    """
    return every is not None and step % every == 0 and step < steps


def end_after_this_step(control: Any) -> None:
    """Have the trainer save a checkpoint and stop."""
    control.should_evaluate = False
    control.should_save = True
    control.should_training_stop = True


def leave_evaluation(stop: StopSignal) -> None:
    """Leave an evaluation, which has nothing to save, once SIGTERM has arrived.

    Raises:
        TerminatedError: it has; the last checkpoint stands.
    """
    if stop.requested:
        raise TerminatedError(
            "stopped by SIGTERM during the evaluation; the same command goes on from the last checkpoint"
        )


def check_finite(entry: Mapping[str, Any]) -> None:
    """Check loss and gradient norm of a step.

    Raises:
        ConfigError: one of them is NaN or infinite: the run has diverged, and trying again would do the same.
    """
    for name in ("loss", "grad_norm"):
        if not math.isfinite(entry[name]):
            raise ConfigError(
                f"the {name.replace('_', ' ')} became {entry[name]} at step {entry['step']} (learning rate "
                f"{entry['learning_rate']:.3g}): training diverged; lower train.learning_rate, or raise "
                "train.warmup_fraction"
            )
