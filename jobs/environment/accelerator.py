"""The GPU, and a 4-bit kernel that really quantises and multiplies. Imports torch: import inside functions."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from typing import Any

import torch

from jobs.environment.checks import Check
from pipeline_common.config import Config
from pipeline_common.driver import Listing, list_gpus
from pipeline_common.errors import ConfigError
from pipeline_common.gpu.four_bit import import_failure, kernel_failure, multiply_in_four_bits


def check_gpu(config: Config) -> Check:
    """Name, memory, driver, CUDA and bf16 of the GPU the stages will use."""
    need = config.environment.min_gpu_memory_gib
    if not torch.cuda.is_available():
        driver = list_gpus()
        seen = _describe_unusable(driver)
        if need > 0 or config.runtime.device == "cuda":
            fix = "use a machine with a GPU, torch's CUDA build and driver 580 or newer"
            return Check(
                "gpu", "failed", f"{seen}; the profile needs {need:.0f} GiB of GPU memory", fix, error=ConfigError
            )
        if driver.gpus:
            return Check("gpu", "degraded", f"{seen}: running on the CPU", "install torch's CUDA build (make setup)")
        if driver.error is not None:
            fix = "mend the driver (580 or newer) until nvidia-smi lists the GPUs"
            return Check("gpu", "degraded", f"{seen}: running on the CPU", fix)
        return Check("gpu", "ok", "none, and the profile needs none", facts={"devices": []})
    devices: list[dict[str, Any]] = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        devices.append(
            {
                "name": properties.name,
                "memory_gib": round(properties.total_memory / (1 << 30), 1),
                "compute_capability": f"{properties.major}.{properties.minor}",
            }
        )
    driver = list_gpus()
    facts = {
        "devices": devices,
        "cuda": torch.version.cuda,
        "driver": driver.gpus[0]["driver"] if driver.gpus else None,
        "bf16": torch.cuda.is_bf16_supported(),
    }
    smallest = min(float(device["memory_gib"]) for device in devices)
    version = facts["driver"] or f"unknown ({driver.error or 'no nvidia-smi'})"
    detail = f"{len(devices)} x {devices[0]['name']}, {smallest:.0f} GiB, CUDA {facts['cuda']}, driver {version}"
    if smallest < need:
        return Check(
            "gpu", "failed", f"{detail}; the profile needs {need:.0f} GiB", "use a larger GPU", facts, ConfigError
        )
    if config.model.compute_dtype == "bfloat16" and not facts["bf16"]:
        fix = "set model.compute_dtype=float32"
        return Check("gpu", "failed", f"{detail}; no bf16, which the profile computes in", fix, facts, ConfigError)
    return Check("gpu", "ok", detail, facts=facts)


def _describe_unusable(driver: Listing) -> str:
    """What the driver knows of GPUs where torch has none."""
    if driver.gpus:
        return f"the driver lists {driver.gpus[0]['name']}, but torch {torch.__version__} cannot use it"
    return "none" if driver.error is None else f"none that torch {torch.__version__} can use, and {driver.error}"


def check_four_bit(config: Config) -> Check:
    """Quantise a matrix to NF4, multiply with it, compare with the float result and with the kernel's own weights."""
    if config.model.quantization == "none":
        return Check("4-bit kernel", "ok", "not needed: model.quantization=none", facts={"usable": None})
    device = "cuda" if torch.cuda.is_available() and config.runtime.device != "cpu" else "cpu"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        broken = import_failure()
        reason = broken or kernel_failure(device)
        if reason is not None:
            detail = f"{reason}; training uses LoRA without quantisation"
            return Check("4-bit kernel", "degraded", detail, "make setup", {"usable": False, "device": device})
        trial = multiply_in_four_bits(device)
    facts = {"usable": True, "device": device, **{name: round(value, 6) for name, value in asdict(trial).items()}}
    return Check("4-bit kernel", "ok", f"NF4 on {device}: products within {trial.from_float:.1%} of float", facts=facts)
