"""How many steps a fine-tune takes: arithmetic, no library."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline_common.config import TrainConfig


@dataclass(frozen=True)
class Schedule:
    """Optimizer steps of one fine-tune."""

    batches_per_epoch: int
    steps_per_epoch: int
    steps: int
    """What is run: the smaller of `epochs` and `max_steps`."""
    warmup_steps: int
    effective_epochs: float
    """Passes over the training rows after `steps`, counted in batches."""
    capped: bool
    """True: `max_steps` ends it before `epochs` do."""


def plan_steps(rows: int, train: TrainConfig) -> Schedule:
    """Steps for `rows` training rows.

    The trainer lets `max_steps` override epochs in both directions; here it is an upper bound, as the plan says
    ("3 epochs with max 250 steps").

    Args:
        rows: training rows, at least 1.
        train: the train section.

    Returns:
        The schedule; `steps` >= 1.
    """
    batches = math.ceil(rows / train.batch_size)
    per_epoch = math.ceil(batches / train.gradient_accumulation)
    wanted = math.ceil(train.epochs * per_epoch)
    steps = wanted if train.max_steps is None else min(wanted, train.max_steps)
    return Schedule(
        batches_per_epoch=batches,
        steps_per_epoch=per_epoch,
        steps=steps,
        warmup_steps=math.ceil(train.warmup_fraction * steps),
        effective_epochs=count_epochs(steps, batches, per_epoch, train.gradient_accumulation),
        capped=steps < wanted,
    )


def count_epochs(steps: int, batches_per_epoch: int, steps_per_epoch: int, accumulation: int) -> float:
    """Epochs done after `steps`: the last step of an epoch may hold fewer batches than the others."""
    whole, rest = divmod(steps, steps_per_epoch)
    return whole + rest * accumulation / batches_per_epoch
