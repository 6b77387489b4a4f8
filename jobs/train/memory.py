"""How many tokens go through the model at once: measured on the model and the card at hand, not guessed.

Legend: T tokens of one forward and backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import torch

from pipeline_common.errors import TransientError
from pipeline_common.logs import get_logger

if TYPE_CHECKING:
    from jobs.train.flat import FlatTrainer

# Beyond this a pass gains nothing; below ENOUGH, recomputing activations costs less than small passes do.
MOST: Final = 20_480
ENOUGH: Final = 2_048
_WITHOUT_A_GPU: Final = 4_096
# The rest is for fragments, and for what other processes on the card may take.
_USABLE: Final = 0.88
_FIRST_PROBE: Final = 1_024
_LARGEST_PROBE: Final = 8_192
# Gradient and two moments of Adam, float32.
_BYTES_PER_TRAINED: Final = 12
_log = get_logger(__name__)


@dataclass(frozen=True)
class BatchPlan:
    """What the flat engine decided."""

    tokens_per_batch: int
    activation_checkpointing: bool
    free_gib: float | None = None
    """Measured beside the loaded model; None where nothing was measured."""
    mib_per_token: float | None = None
    """Measured, with this choice of checkpointing."""


@dataclass(frozen=True)
class Need:
    """Memory of one pass: a straight line in T."""

    fixed: float
    """Bytes."""
    per_token: float
    """Bytes."""

    def tokens(self, free: float) -> int:
        """T that fits into `free` bytes."""
        return max(0, int((free - self.fixed) / self.per_token))


def choose(
    free: float,
    need: Callable[[bool], Need],
    *,
    longest_row: int,
    largest_step: int,
    checkpointing: bool | Literal["auto"],
    tokens: int | Literal["auto"],
) -> BatchPlan:
    """Keep activations if a useful pass fits with them, otherwise recompute them.

    Args:
        free: bytes for a pass.
        need: a pass's memory, without (False) and with (True) checkpointing; asked only for what is looked at.
        longest_row: tokens; no row is ever cut.
        largest_step: tokens of one optimizer step at most: larger passes have nothing to hold.
        checkpointing: as configured.
        tokens: as configured.

    Raises:
        TransientError: not even the longest row fits.
    """
    useful = max(longest_row, min(MOST, largest_step))
    wanted = max(longest_row, min(ENOUGH, useful)) if tokens == "auto" else max(longest_row, tokens)
    for recompute in (False, True) if checkpointing == "auto" else (checkpointing,):
        measured = need(recompute)
        fitting = measured.tokens(free)
        last = recompute or checkpointing is False
        if fitting >= wanted or (last and fitting >= longest_row):
            chosen = min(fitting, useful) if tokens == "auto" else tokens
            return BatchPlan(chosen, recompute, free / 2**30, measured.per_token / 2**20)
    raise TransientError(
        f"the GPU's memory does not suffice: the longest row has {longest_row} tokens, {free / 2**30:.1f} GiB "
        f"are free, a pass takes {measured.fixed / 2**30:.1f} GiB and {measured.per_token / 2**20:.2f} MiB a token: "
        "set train.activation_checkpointing=true, lower prepare.max_length, or use a larger GPU"
    )


def plan_batches(
    trainer: FlatTrainer,
    *,
    lengths: list[int],
    rows_per_step: int,
    checkpointing: bool | Literal["auto"],
    tokens: int | Literal["auto"],
) -> BatchPlan:
    """The plan for a built trainer; on CUDA some small passes are run and measured, without leaving a trace.

    Args:
        trainer: with its model in place.
        lengths: tokens of every row, training and validation.
        rows_per_step: rows of an optimizer step.
        checkpointing: as configured.
        tokens: as configured.
    """
    largest_step = sum(sorted(lengths)[-rows_per_step:])
    if trainer.args.device.type != "cuda" or (tokens != "auto" and checkpointing != "auto"):
        chosen = min(_WITHOUT_A_GPU, largest_step) if tokens == "auto" else tokens
        return BatchPlan(chosen, checkpointing is True)
    trained = sum(parameter.numel() for parameter in trainer.model.parameters() if parameter.requires_grad)
    measured: dict[bool, Need] = {}

    def need(recompute: bool) -> Need:
        if recompute not in measured:
            measured[recompute] = measure(trainer, recompute) or _more_than_there_is(trainer)
        return measured[recompute]

    # The first pass compiles kernels and fills libraries' workspaces; free memory is what is left after it.
    need(True)
    torch.cuda.empty_cache()
    free = torch.cuda.mem_get_info()[0] * _USABLE - trained * _BYTES_PER_TRAINED
    plan = choose(
        free,
        need,
        longest_row=max(lengths),
        largest_step=largest_step,
        checkpointing=checkpointing,
        tokens=tokens,
    )
    _log.info(
        "memory: %.1f GiB free, %.2f MiB a token: passes of %d tokens, activations %s",
        plan.free_gib,
        plan.mib_per_token,
        plan.tokens_per_batch,
        "recomputed" if plan.activation_checkpointing else "kept",
    )
    return plan


def set_checkpointing(model: Any, on: bool) -> None:
    """Recompute each layer's activations in the backward pass, or keep them."""
    if on:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    else:
        model.activation_checkpointing_disable()


def measure(trainer: FlatTrainer, recompute: bool) -> Need | None:
    """Memory of a pass, from two passes of different size over the first training rows.

    The second is as large as is safe, since the allocator's rounding weighs on a small difference.

    Returns:
        The need; None if not even these small passes fit.
    """
    set_checkpointing(trainer.model, recompute)
    trainer.model.train()
    try:
        return _measure(trainer)
    except torch.cuda.OutOfMemoryError:
        return None


def _more_than_there_is(trainer: FlatTrainer) -> Need:
    """What stands for a pass that did not fit; called when its exception, and with it its activations, is gone."""
    trainer.model.zero_grad(set_to_none=True)
    torch.cuda.empty_cache()
    return Need(fixed=float(torch.cuda.get_device_properties().total_memory), per_token=float(2**20))


def _measure(trainer: FlatTrainer) -> Need:
    with torch.random.fork_rng(devices=[torch.cuda.current_device()]):
        _peak(trainer, _FIRST_PROBE)  # compiles kernels
        first = _peak(trainer, _FIRST_PROBE)
        # The first pass's fixed part counts as if it grew, so this errs on the small side.
        safe = int(torch.cuda.mem_get_info()[0] * _USABLE / 2 / (first / _FIRST_PROBE))
        second_size = max(2 * _FIRST_PROBE, min(_LARGEST_PROBE, safe))
        second = _peak(trainer, second_size)
    slope = (second - first) / (second_size - _FIRST_PROBE)
    return Need(fixed=max(0.0, first - slope * _FIRST_PROBE), per_token=slope)


def _peak(trainer: FlatTrainer, tokens: int) -> int:
    """Bytes that a pass takes at its peak, beside what is there before and after."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    resting = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    trainer.try_pass(tokens)
    torch.cuda.synchronize()
    peak = int(torch.cuda.max_memory_allocated() - resting)
    trainer.model.zero_grad(set_to_none=True)
    return peak
