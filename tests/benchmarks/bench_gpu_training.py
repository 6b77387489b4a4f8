"""Training speed on the GPU of this machine: the flat engine and plain TRL in one run, on the shape of Llama-3-8B.

    python -m tests.benchmarks.bench_gpu_training          # about three minutes on one H200
    python -m tests.benchmarks.bench_gpu_training --only "flat, auto"

The weights are random and are made on the card: speed does not depend on their values. Rows have log-normal lengths
with a mean of 258 tokens; only real tokens count, no padding. `--shape tiny` tries the program itself on the CPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import logging
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import torch

from jobs.train.allocator import let_segments_grow
from jobs.train.building import build_trainer
from jobs.train.callbacks import StepWatcher, Watch
from jobs.train.flat import FlatTrainer
from jobs.train.flat_setup import make_flat
from jobs.train.metrics import MetricsWriter
from jobs.train.quiet import quiet_libraries
from pipeline_common.config import TrainConfig
from pipeline_common.progress import track
from pipeline_common.termination import StopSignal
from tests.benchmarks.random_llama import (
    COMMON,
    LLAMA_3_8B,
    TINY,
    build_model,
    counted_steps,
    make_recipe,
    make_tokenizer,
    mean_speed,
    measure_matmul,
    useful_flops,
)
from tests.liger_patches import transformers_own_layers

_log = logging.getLogger(__name__)
_FLAT: Final = {"engine": "flat", "batch_size": 16, "gradient_accumulation": 4, "activation_checkpointing": False}
_PLAN: Final = {
    "engine": "flat", "batch_size": 4, "gradient_accumulation": 2, "activation_checkpointing": "auto",
}  # fmt: skip
VARIANTS: Final = {
    "flat, 64 rows, no checkpointing": {**_FLAT, "steps": 16},
    "plain TRL, 16 rows, checkpointing": {
        "engine": "plain", "batch_size": 16, "gradient_accumulation": 1, "activation_checkpointing": True, "steps": 11,
    },
    "flat, 64 rows, checkpointing, 16 GiB": {
        **_FLAT, "activation_checkpointing": True, "memory_gib": 16.0, "steps": 9,
    },
    "flat, 64 rows, auto, 16 GiB": {**_FLAT, "activation_checkpointing": "auto", "memory_gib": 16.0, "steps": 9},
    "flat, auto, 8 rows (the plan's step)": {**_PLAN, "steps": 80},
    "flat, auto, 8 rows, started kernel by kernel": {**_PLAN, "cuda_graphs": False, "steps": 15},
    "flat, 64 rows, no checkpointing, PEFT's adapters": {**_FLAT, "steps": 8},
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Measured:
    """One line of the table."""

    name: str
    tokens_per_second: float
    peak_gib: float
    note: str


def main(arguments: list[str]) -> int:
    """Measure the variants and print a Markdown table."""
    let_segments_grow()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--shape", choices=["llama3-8b", "tiny"], default="llama3-8b")
    parser.add_argument("--only", default="", help="variants whose name contains this")
    parser.add_argument("--profile", action="store_true", help="also: GPU time of one pass by class of kernel")
    chosen = parser.parse_args(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and chosen.shape != "tiny":
        print("no GPU: torch sees none; --shape tiny tries the program itself", file=sys.stderr)
        return 3
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    quiet_libraries()
    rate = measure_matmul(device)
    shape = LLAMA_3_8B if chosen.shape == "llama3-8b" else TINY
    print(describe_machine(device))
    print(f"bfloat16 product of 8192-cubed matrices: {rate / 1e12:.0f} TFLOP/s\n" if device == "cuda" else "")
    lines = []
    for name, settings in VARIANTS.items():
        if chosen.only in name:
            # Plain TRL has none of the layers that Liger gave to the variant before it.
            with transformers_own_layers():
                found = measure(
                    name, shape, device, dict(settings), profile=chosen.profile and name == next(iter(VARIANTS))
                )
            lines.append(found)
            print(f"# {found}", flush=True)
    print("\n| training | real tokens/s | share | peak GiB | |\n| --- | ---: | ---: | ---: | --- |")
    for line in lines:
        share = useful_flops(shape) * line.tokens_per_second / rate if rate else float("nan")
        print(f"| {line.name} | {line.tokens_per_second:,.0f} | {share:.3f} | {line.peak_gib:.1f} | {line.note} |")
    return 0


def measure(name: str, shape: dict[str, Any], device: str, settings: dict[str, Any], *, profile: bool) -> Measured:
    """Train for some steps through this project's own trainer; the first ones are not counted."""
    steps = settings.pop("steps")
    train = TrainConfig(**COMMON, **settings, max_steps=steps)
    notes: list[str] = []

    def note(what: str, why: str) -> None:
        notes.append(f"{what}: {why}")

    with tempfile.TemporaryDirectory() as folder, track("training", steps) as advance:
        recipe = make_recipe(train, shape, device, Path(folder), note, on_less_memory=notes.append)
        writer = MetricsWriter(Path(folder) / "metrics.jsonl", lambda _: None)
        watcher = StepWatcher(Watch(steps, 1, None, {}, writer, StopSignal(), advance))
        trainer = build_trainer(build_model(shape, device), make_tokenizer(), recipe, watcher)
        if isinstance(trainer, FlatTrainer):
            plan = make_flat(trainer, recipe, fuse="PEFT's" not in name)
            notes.append(plan.describe())
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        trainer.train()
        peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.0
        counted = counted_steps(trainer.state.log_history)
        if isinstance(trainer, FlatTrainer) and trainer.recorded is not None:
            spent = recipe.clock.seconds.get("recording passes", 0.0)
            later = mean_speed(counted[len(counted) // 2 :])
            notes.append(
                f"{trainer.recorded.recorded} sizes recorded in {spent:.1f} s; second half {later:,.0f} tokens/s"
            )
        _log.info("tokens/s of each step: %s", [round(entry["tokens"] / entry["seconds"]) for entry in counted])
        if profile and device == "cuda":
            print(profile_pass(trainer))
    del trainer
    gc.collect()
    torch.cuda.empty_cache()  # does nothing without a GPU
    return Measured(name, mean_speed(counted), peak, "; ".join(notes))


def profile_pass(trainer: FlatTrainer) -> str:
    """GPU time of one forward and backward pass by class of kernel, as a Markdown table."""
    from torch.profiler import ProfilerActivity, profile

    classes = {
        "attention": ("flash", "fmha", "attn"),
        "dropout and rank-16 products (ours)": ("_project", "_outer", "_spread"),
        "dequantisation": ("dequant",),
        "matrix products": ("gemm", "nvjet", "cutlass", "splitk", "sm90_xmma"),
        "Liger": ("liger", "rms_norm", "swiglu", "silu", "rope", "element_mul"),
        "copies": ("memcpy", "memset", "copy"),
    }
    trainer.model.train()
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        trainer.try_pass(trainer.tokens_per_batch)
        torch.cuda.synchronize()
    trainer.model.zero_grad(set_to_none=True)
    total: dict[str, float] = {}
    names: dict[str, float] = {}
    for event in recorded.key_averages():
        key = event.key.lower()
        kind = next(
            (kind for kind, words in classes.items() if any(word in key for word in words)), "elementwise, rest"
        )
        total[kind] = total.get(kind, 0.0) + event.self_device_time_total / 1e3
        names[event.key[:100]] = event.self_device_time_total / 1e3
    everything = sum(total.values())
    lines = ["| kernels | ms | share |", "| --- | ---: | ---: |"]
    lines += [
        f"| {kind} | {ms:.1f} | {ms / everything:.3f} |" for kind, ms in sorted(total.items(), key=lambda x: -x[1])
    ]
    longest = sorted(names.items(), key=lambda item: -item[1])[:14]
    return "\n".join([*lines, "", *(f"    {ms:8.1f} ms {name}" for name, ms in longest)])


def describe_machine(device: str) -> str:
    """Card and versions."""
    found = []
    for package in ("torch", "transformers", "trl", "peft", "bitsandbytes", "liger-kernel"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"no {package}")
    card = torch.cuda.get_device_name() if device == "cuda" else "no GPU"
    return f"{card}; {', '.join(found)}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
