"""Training speed on several GPUs of this machine against one of them: the flat engine on the shape of Llama-3-8B.

    python -m tests.benchmarks.bench_gpu_scaling --gpus 2      # about two minutes on two H200
    python -m tests.benchmarks.bench_gpu_scaling --gpus 2 --shape tiny      # tries the program itself, on the CPU

Weights are random, rows are those of `random_llama`. The share is tokens/s over the number of GPUs times what one
reaches with the same number of rows on each (*scaled*), or with the same rows in a step (*same step*).
"""

from __future__ import annotations

import argparse
import gc
import logging
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from jobs.train.allocator import let_segments_grow
from jobs.train.building import build_trainer
from jobs.train.callbacks import StepWatcher, Watch
from jobs.train.distributed import Team
from jobs.train.distributed_store import LOCAL, Place
from jobs.train.distributed_trainer import TeamWatcher
from jobs.train.flat import FlatTrainer
from jobs.train.flat_setup import make_flat
from jobs.train.metrics import MetricsWriter
from jobs.train.quiet import quiet_libraries
from pipeline_common.config import TrainConfig
from pipeline_common.progress import track
from pipeline_common.termination import StopSignal
from tests.benchmarks.bench_gpu_training import describe_machine
from tests.benchmarks.random_llama import (
    COMMON,
    LLAMA_3_8B,
    TINY,
    build_model,
    counted_steps,
    make_recipe,
    make_tokenizer,
    mean_speed,
)


def main(arguments: list[str]) -> int:
    """Measure one GPU, then all, and print a Markdown table."""
    let_segments_grow()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--gpus", type=int, default=2)
    parser.add_argument("--shape", choices=["llama3-8b", "tiny"], default="llama3-8b")
    parser.add_argument("--rows", type=int, nargs="+", default=[64, 8], help="rows of one GPU's step")
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--rank", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    device = "cuda" if torch.cuda.is_available() and chosen.shape != "tiny" else "cpu"
    logging.basicConfig(level=logging.INFO if chosen.rank == 0 else logging.WARNING, format="%(message)s")
    quiet_libraries()
    shape = LLAMA_3_8B if chosen.shape == "llama3-8b" else TINY
    if device == "cuda":
        torch.cuda.set_device(chosen.rank)
    team = Team(Place(chosen.rank, chosen.gpus, chosen.rank, chosen.gpus), LOCAL, chosen.port)
    others = [_start(arguments, rank, team.port) for rank in range(1, chosen.gpus) if chosen.rank == 0]
    alone: dict[int, float] = {}
    lines = []
    if chosen.rank == 0:
        print(describe_machine(device), flush=True)
        for rows in chosen.rows:
            alone[rows], peak = measure(shape, device, rows, chosen.steps, None)
            lines.append(f"| 1 | {rows} | {alone[rows]:,.0f} | | {peak:.1f} |")
            print(f"# {lines[-1]}", flush=True)
    team.meet(device, {"torch": torch.__version__})
    for rows in chosen.rows:
        for all_rows, name in ((rows * chosen.gpus, "scaled"), (rows, "same step")):
            speed, peak = measure(shape, device, all_rows, chosen.steps, team)
            if chosen.rank == 0:
                share = speed / chosen.gpus / alone[rows]
                lines.append(f"| {chosen.gpus} | {all_rows} | {speed:,.0f} | {share:.3f} ({name}) | {peak:.1f} |")
                print(f"# {lines[-1]}", flush=True)
    team.close()
    if chosen.rank == 0:
        print("\n| GPUs | rows of a step | real tokens/s | share | peak GiB |\n| ---: | ---: | ---: | ---: | ---: |")
        print("\n".join(lines))
    return max([0, *(process.wait() for process in others)])


def _start(arguments: list[str], rank: int, port: int) -> subprocess.Popen[bytes]:
    module = [sys.executable, "-m", "tests.benchmarks.bench_gpu_scaling"]
    return subprocess.Popen([*module, *arguments, "--rank", str(rank), "--port", str(port)])


def measure(shape: dict[str, Any], device: str, rows: int, steps: int, team: Team | None) -> tuple[float, float]:
    """Tokens/s of all processes together, and this one's peak memory in GiB; the first steps are not counted.

    Args:
        shape: settings of the Llama.
        device: `cpu` or `cuda`.
        rows: of a step, over all processes.
        steps: how many.
        team: met; None = this process alone.
    """
    train = TrainConfig(
        engine="flat",
        batch_size=rows,
        gradient_accumulation=1,
        max_steps=steps,
        **COMMON,
    )

    def note(what: str, why: str) -> None:
        print(f"{what}: {why}")

    with tempfile.TemporaryDirectory() as folder, track("training", steps) as advance:
        recipe = make_recipe(train, shape, device, Path(folder), note, team=team)
        stop = StopSignal()
        writer = MetricsWriter(Path(folder) / "metrics.jsonl", lambda _: None)
        watchers: list[Any] = [StepWatcher(Watch(steps, 1, None, {}, writer, stop, advance))]
        if team is not None:
            watchers.insert(0, TeamWatcher(team, recipe, stop))
        trainer = build_trainer(build_model(shape, device), make_tokenizer(), recipe, *watchers)
        if not isinstance(trainer, FlatTrainer):
            raise TypeError(f"expected the flat engine, got {type(trainer).__name__}")
        if device == "cuda":
            trainer.model.get_base_model().hf_device_map = {"": torch.cuda.current_device()}
            torch.cuda.reset_peak_memory_stats()
        make_flat(trainer, recipe)
        trainer.train()
        print([round(entry["loss"], 4) for entry in trainer.state.log_history if "tokens" in entry][:4], flush=True)
        speed = mean_speed(counted_steps(trainer.state.log_history))
        peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.0
    del trainer
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
    return speed, peak


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
