"""Where and how a process computes, decided before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline_common.errors import ConfigError

if TYPE_CHECKING:
    from pipeline_common.config import Config
    from pipeline_common.gpu.models import Placement


def choose_arithmetic(config: Config, local_rank: int, degrade: Callable[[str, str], None]) -> tuple[Placement, str]:
    """Device and arithmetic, and the optimizer; what had to be given up is told to `degrade`.

    Raises:
        ConfigError: this machine has fewer GPUs than `runtime.gpus`.
    """
    from pipeline_common.gpu.four_bit import import_failure, kernel_failure

    # Before anything imports PEFT, which a broken bitsandbytes would take down.
    broken = import_failure()

    from pipeline_common.gpu.models import choose_placement

    placement = choose_placement(config.model, config.runtime)
    if placement.device == "cuda":
        _choose_gpu(config.runtime.gpus, local_rank)
    optimizer = config.train.optimizer
    if placement.quantization == "nf4":
        reason = broken or kernel_failure(placement.device)
        if reason is not None:
            degrade("no 4-bit kernel", f"{reason}; LoRA on the base in {config.model.compute_dtype} instead")
            placement = replace(placement, quantization="none")
    if broken is not None and optimizer.startswith("paged_"):
        degrade("no paged optimizer", f"{broken}; adamw_torch instead of {optimizer}")
        optimizer = "adamw_torch"
    return placement, optimizer


def _choose_gpu(wanted: int, local_rank: int) -> None:
    import torch

    there = torch.cuda.device_count()
    if wanted > there:
        raise ConfigError(f"runtime.gpus={wanted}, but this machine has {there}; set runtime.gpus={there} or less")
    torch.cuda.set_device(local_rank)
