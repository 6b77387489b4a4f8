"""The whole `llama3-8b` profile on a model of its shape with random weights: seconds and useful arithmetic by stage.

`python -m tests.benchmarks.bench_gpu_pipeline [section.field=value ...]` builds the model (16 GB of bfloat16 weights in
a temporary folder), a tokenizer whose words are single tokens, fine-tuning rows with a mean of 258 tokens and prompts
with a mean of 46, and runs `python -m jobs.pipeline --config llama3-8b` on them without a judge. Random weights say
nothing worth judging; speed does not depend on them.

    python -m tests.benchmarks.bench_gpu_pipeline --shape llama3-70b-8-layers \\
        runtime.gpus=2 train.sharding=full train.engine=plain train.max_steps=10

trains on a base that is divided between two GPUs, and

    python -m tests.benchmarks.bench_gpu_pipeline --free-gib 23 --free-gib 45 --free-gib 79 train.max_steps=20

runs the profile once for each size, on a GPU of which only so much memory is free.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_common.samples.world import AXIOMS
from tests.benchmarks.random_llama import (
    LLAMA_3_8B,
    LLAMA_3_70B_8_LAYERS,
    TINY,
    measure_matmul,
    multiplied_weights,
)
from tests.benchmarks.smaller_card import leave_free

WORDS = 4096
SHAPES = {"llama3-8b": LLAMA_3_8B, "llama3-70b-8-layers": LLAMA_3_70B_8_LAYERS, "tiny": {**TINY, "vocab_size": 20_000}}
ROW_TOKENS, PROMPT_TOKENS = 258, 46
# What the prompt format adds to a row or a prompt, about.
FORMAT_TOKENS = 15
NEW_TOKENS = 64
ROWS = 2600
PROMPTS_PER_CELL = 44


def make_words() -> list[str]:
    """Distinct pronounceable words of six letters."""
    syllables = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
    draw = np.random.default_rng(0)
    found: dict[str, None] = {}
    while len(found) < WORDS:
        found["".join(draw.choice(syllables, 3))] = None
    return list(found)


def make_model(folder: Path, words: list[str], shape: dict[str, Any]) -> None:
    """A Llama with random weights in safetensors, and its tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from jobs.environment.embedded.tokenizer import train_tokenizer

    tokenizer = train_tokenizer([" ".join(words)] * 2, 3 + 256 + 4 * WORDS, 8192)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlamaForCausalLM(
            LlamaConfig(
                **shape,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                dtype="bfloat16",
            )
        )
    model.save_pretrained(folder, max_shard_size="4GB")
    del model
    torch.cuda.empty_cache()


def make_data(folder: Path, words: list[str]) -> None:
    """Fine-tuning rows and labelled prompts; safe and unsafe ones draw their words from halves that overlap."""
    draw = np.random.default_rng(1)

    def text(count: float, pool: list[str] = words) -> str:
        return " ".join(draw.choice(pool, max(4, round(count))))

    lengths = np.exp(draw.normal(0.0, 0.6, ROWS))
    lengths = np.clip(lengths / lengths.mean() * (ROW_TOKENS - FORMAT_TOKENS), 12, 1000)
    prompts = [text(length / 3) for length in lengths]
    answers = [text(2 * length / 3) for length in lengths]
    rows = {
        "Prompt": prompts,
        "Instruction generated": answers,
        "Accepted Response": [f"\n\nHuman: {p}\n\nAssistant: {a}" for p, a in zip(prompts, answers, strict=True)],
        "Rejected Response": [f"\n\nHuman: {p}\n\nAssistant: {text(20)}" for p in prompts],
    }
    pq.write_table(pa.table(rows), folder / "rows.parquet")
    half = WORDS // 2
    pools = {"safe": words[: half + half // 2], "unsafe": words[half - half // 2 :]}
    cells = [(axiom, label) for axiom in AXIOMS for label in pools for _ in range(PROMPTS_PER_CELL)]
    litmus = {
        "axiom": [axiom for axiom, _ in cells],
        "safety_label": [label for _, label in cells],
        "source_dataset": ["random words"] * len(cells),
        "input": [text(draw.normal(PROMPT_TOKENS - FORMAT_TOKENS, 8), pools[label]) for _, label in cells],
        "target": ["-"] * len(cells),
    }
    pq.write_table(pa.table(litmus), folder / "prompts.parquet")


def report(output: Path, shape: dict[str, Any], wall: float, rate: float) -> str:
    """A Markdown table of the stages: wall seconds, the model's arithmetic as a share of the card's rate, GPU memory.

    Below it each stage's longer phases, and how training used the memory.
    """
    latest = output / "latest"
    lines = [
        "| stage | wall s | model PFLOP | share of the card | peak GPU GiB |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    arithmetic = {
        name: work(latest / name, name, shape) for name in ("environment", "prepare", "train", "evaluate", "analyze")
    }
    phases = []
    for name, flop in arithmetic.items():
        made = json.loads((latest / name / "manifest.json").read_text())["provenance"]
        seconds = (datetime.fromisoformat(made["ended"]) - datetime.fromisoformat(made["started"])).total_seconds()
        peak = f"{made['peak_gpu_mib'] / 1024:.1f}" if made["peak_gpu_mib"] is not None else ""
        lines.append(f"| {name} | {seconds:.1f} | {flop / 1e15:.2f} | {flop / seconds / rate:.3f} | {peak} |")
        longer = [f"{one['phase']} {one['seconds']:.1f}" for one in made["phases"] if one["seconds"] >= 0.5]
        phases.append(f"{name}: {', '.join(longer) or 'no phase of half a second'}")
    total = sum(arithmetic.values())
    lines.append(f"| **all** | {wall:.1f} | {total / 1e15:.2f} | {total / wall / rate:.3f} | |")
    facts = json.loads((latest / "train" / "train.json").read_text())
    passes = ("tokens_per_batch", "recomputed_layers", "weights_kept", "recorded_sizes", "mib_per_token")
    trained = ", ".join(f"{name} {facts[name]}" for name in passes)
    return "\n".join([*lines, "", *phases, f"trained at {facts['tokens_per_second']:,.0f} tokens/s; {trained}"])


def work(folder: Path, stage: str, shape: dict[str, Any]) -> float:
    """FLOPs the stage cannot do without: 4 per weight and token trained, 2 per weight and token read."""
    trunk, head = multiplied_weights(shape)
    if stage == "train":
        facts = json.loads((folder / "train.json").read_text())
        return 4 * (trunk + head) * float(facts["trained_tokens"])
    if stage == "evaluate":
        count = sum(1 for _ in (folder / "prompts.jsonl").open())
        answers = sum(1 for _ in (folder / "responses.jsonl").open())
        mean = float(np.mean(pq.read_table(folder.parent / "prepare" / "prompts.parquet")["prompt_tokens"]))
        tokens = 2 * count * mean + answers * (mean + NEW_TOKENS)
        return 2 * trunk * tokens + 2 * head * answers * NEW_TOKENS
    return 0.0


def main() -> int:
    """Build, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("overrides", nargs="*", metavar="section.field=value")
    parser.add_argument("--shape", choices=list(SHAPES), default="llama3-8b", help="tiny tries the program")
    parser.add_argument("--keep", type=Path, help="a folder for the run, kept")
    parser.add_argument(
        "--free-gib", type=float, action="append", help="with so much GPU memory free; again: a run each"
    )
    arguments = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory(prefix="bench-gpu-pipeline-") as scratch:
        folder = arguments.keep or Path(scratch)
        shape = SHAPES[arguments.shape]
        words = make_words()
        began = time.perf_counter()
        make_model(folder / "model", words, shape)
        make_data(folder, words)
        print(f"model and data made in {time.perf_counter() - began:.1f} s", flush=True)
        rate = measure_matmul("cuda") if arguments.shape != "tiny" else float("nan")
        for free in arguments.free_gib or [None]:
            output = folder / ("output" if free is None else f"output-{free:g}")
            with nullcontext() if free is None else leave_free(free):
                began = time.perf_counter()
                code = run_profile(folder, output, arguments.overrides)
                wall = time.perf_counter() - began
            if code:
                return code
            if free is not None:
                print(f"{free:g} GiB free:")
            print(report(output, shape, wall, rate), flush=True)
    return 0


def run_profile(folder: Path, output: Path, overrides: list[str]) -> int:
    """`llama3-8b` without a judge on the model and data of `folder`; returns the pipeline's exit code."""
    command = [
        *(sys.executable, "-m", "jobs.pipeline", "--config", "llama3-8b"),
        *(f"model.base={folder / 'model'}", "model.revision=null", "runtime.offline=true"),
        *(f"prepare.dataset={folder / 'rows.parquet'}", f"prepare.prompts={folder / 'prompts.parquet'}"),
        *("environment.min_free_disk_gib=1", "evaluate.judge.kind=none", f"runtime.output_dir={output}"),
        *overrides,
    ]
    return subprocess.run(command, env={**os.environ, "HF_HUB_OFFLINE": "1"}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
