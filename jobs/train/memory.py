"""How many tokens go through the model at once: measured on the model and the card at hand, not guessed.

Legend: T tokens of one forward and backward pass.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, Literal

import torch

from jobs.train.batch_plan import BatchPlan, Line, Machine, Probe, Work, choose
from jobs.train.fused_lora import frozen_weight
from pipeline_common.errors import ConfigError
from pipeline_common.logs import get_logger

if TYPE_CHECKING:
    from jobs.train.flat import FlatTrainer

_WITHOUT_A_GPU: Final = 4_096
# The rest is for fragments, and for what other processes on the card may take.
_USABLE: Final = 0.88
_FIRST_PROBE: Final = 512
_LARGEST_PROBE: Final = 8_192
# Gradient, its copy for the optimizer, and two moments of Adam, float32.
_BYTES_PER_TRAINED: Final = 16
_log = get_logger(__name__)


def plan_batches(
    trainer: FlatTrainer,
    work: Work,
    *,
    checkpointing: bool | Literal["auto"],
    tokens: int | Literal["auto"],
    limit_gib: float | None = None,
) -> BatchPlan:
    """The plan for a built trainer; on CUDA some small passes are run and measured, without leaving a trace.

    Args:
        trainer: with its model in place.
        work: the rows, training and validation.
        checkpointing: as configured.
        tokens: as configured.
        limit_gib: GPU memory that this process may take; None = what is free.

    Raises:
        TransientError: not even the longest row fits.
        ConfigError: the limit is more than the GPU has.
    """
    layers = len(checkpointed_layers(trainer.model))
    cuda = trainer.args.device.type == "cuda"
    if cuda:
        total = torch.cuda.get_device_properties().total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit_gib * 2**30 / total) if limit_gib else 1.0)
    if not cuda or (tokens != "auto" and checkpointing != "auto"):
        chosen = min(_WITHOUT_A_GPU, work.largest_step) if tokens == "auto" else tokens
        return BatchPlan(chosen, layers if checkpointing is True else 0, layers)
    # The first pass compiles kernels and fills libraries' workspaces; free memory is what is left after it.
    recomputed = measure(trainer, recompute=True, limit_gib=limit_gib)
    _forget_failed(trainer)
    free = _free_bytes(limit_gib)
    kept = None
    if checkpointing is not True:
        # Small passes wait for the host and say little about larger ones: two products a weight instead of three.
        least = recomputed.seconds.per_token * 2 / 3 if recomputed else 0.0
        kept = measure(trainer, recompute=False, limit_gib=limit_gib, least_seconds=least)
        _forget_failed(trainer)
    trained = sum(parameter.numel() for parameter in trainer.model.parameters() if parameter.requires_grad)
    weights, dequantising = _dequantise_all(trainer)
    plan = choose(
        Machine(free * _USABLE - trained * _BYTES_PER_TRAINED, layers, weights, dequantising),
        kept,
        recomputed,
        work,
        checkpointing=checkpointing,
        tokens=tokens,
    )
    _log.info("memory: %s", plan.describe())
    return plan


def checkpointed_layers(model: Any) -> list[Any]:
    """The model's layers, in their order."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def set_checkpointing(model: Any, layers: int) -> None:
    """Recompute the first `layers` layers' activations in the backward pass, and keep the others'.

    The first ones, because the backward pass comes to them when it has let go of what the others kept.
    """
    if not layers:
        model.activation_checkpointing_disable()
        return
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    for layer in checkpointed_layers(model)[layers:]:
        layer.gradient_checkpointing = False


def measure(
    trainer: FlatTrainer, *, recompute: bool, limit_gib: float | None, least_seconds: float = 0.0
) -> Probe | None:
    """Memory and time of a pass, from two passes of different size over the first training rows.

    The second is as large as is safe, since the allocator's rounding weighs on a small difference.

    Args:
        trainer: with its model in place.
        recompute: all layers' activations.
        limit_gib: as configured.
        least_seconds: that a token takes.

    Returns:
        The lines; None if not even these small passes fit.
    """
    set_checkpointing(trainer.model, len(checkpointed_layers(trainer.model)) if recompute else 0)
    trainer.model.train()
    try:
        return _measure(trainer, limit_gib, least_seconds)
    except torch.cuda.OutOfMemoryError:
        return None


def _measure(trainer: FlatTrainer, limit_gib: float | None, least_seconds: float) -> Probe:
    with torch.random.fork_rng(devices=[torch.cuda.current_device()]):
        _run(trainer, _FIRST_PROBE)  # compiles kernels
        first = _run(trainer, _FIRST_PROBE)
        # The first pass's fixed part counts as if it grew, so this errs on the small side.
        torch.cuda.empty_cache()
        safe = int(_free_bytes(limit_gib) * _USABLE / (first[0] / _FIRST_PROBE))
        size = max(2 * _FIRST_PROBE, min(_LARGEST_PROBE, safe))
        second = _run(trainer, size)
    return Probe(
        Line.through((_FIRST_PROBE, first[0]), (size, second[0])),
        Line.through((_FIRST_PROBE, first[1]), (size, second[1]), least=least_seconds),
        launching=first[1],
        busy=second[1] / size,
    )


def _run(trainer: FlatTrainer, tokens: int) -> tuple[float, float]:
    """Bytes that a pass takes at its peak beside what is there before and after, and the seconds of a second one."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    resting = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    trainer.try_pass(tokens)
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() - resting
    trainer.model.zero_grad(set_to_none=True)
    # The first one has asked the driver for memory, which takes its time.
    start = time.perf_counter()
    trainer.try_pass(tokens)
    torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    trainer.model.zero_grad(set_to_none=True)
    return float(peak), seconds


def _forget_failed(trainer: FlatTrainer) -> None:
    """After a pass that may not have fitted; its exception, and with it its activations, must be gone."""
    trainer.let_go()
    trainer.model.zero_grad(set_to_none=True)
    torch.cuda.empty_cache()


def _free_bytes(limit_gib: float | None) -> float:
    free, total = torch.cuda.mem_get_info()
    if limit_gib is not None and limit_gib * 2**30 > total:
        raise ConfigError(
            f"train.memory_gib={limit_gib:g}, but the GPU has {total / 2**30:.1f} GiB; lower it, or leave it at null"
        )
    reserved = float(torch.cuda.memory_reserved())
    return float(free) if limit_gib is None else min(float(free), limit_gib * 2**30 - reserved)


def _dequantise_all(trainer: FlatTrainer) -> tuple[float, float]:
    """Bytes of all frozen 4-bit weights when dequantised, and the seconds that it takes to make them."""
    groups = trainer.adapters.groups if trainer.adapters else []
    bases = [module.base_layer for group in groups for module in group.modules]
    bases = [base for base in bases if getattr(base.weight, "quant_state", None) is not None]
    if not bases:
        return 0.0, 0.0
    dtype = torch.bfloat16 if trainer.args.bf16 else torch.float32
    size = float(sum(base.in_features * base.out_features for base in bases) * dtype.itemsize)
    frozen_weight(bases[0], dtype)
    torch.cuda.synchronize()
    start = time.perf_counter()
    for base in bases:
        frozen_weight(base, dtype)
    torch.cuda.synchronize()
    return size, time.perf_counter() - start
