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
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import torch

from jobs.train.allocator import let_segments_grow
from jobs.train.building import build_trainer
from jobs.train.callbacks import StepWatcher, Watch
from jobs.train.engine import choose_engine
from jobs.train.flat import FlatTrainer
from jobs.train.flat_setup import make_flat
from jobs.train.metrics import MetricsWriter
from jobs.train.quiet import quiet_libraries
from jobs.train.recipe import Recipe
from jobs.train.rows import IGNORED, LabelledRows
from jobs.train.schedule import plan_steps
from pipeline_common.config import TrainConfig
from pipeline_common.gpu.models import Placement
from pipeline_common.progress import track
from pipeline_common.termination import StopSignal

_log = logging.getLogger(__name__)
MEAN_TOKENS: Final = 258
WARM_UP: Final = 3
LLAMA_3_8B: Final = {
    "vocab_size": 128_256,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
    "rope_theta": 500_000.0,
}
# Layers of Llama-3-70B's width: what a base divided among GPUs is tried with.
LLAMA_3_70B_8_LAYERS: Final = {
    **LLAMA_3_8B,
    "hidden_size": 8192,
    "intermediate_size": 28_672,
    "num_hidden_layers": 8,
    "num_attention_heads": 64,
}
TINY: Final = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}
_COMMON: Final = {"learning_rate": 2e-4, "save_steps": 10_000, "optimizer": "paged_adamw_32bit", "epochs": 100.0}
_FLAT: Final = {"engine": "flat", "batch_size": 16, "gradient_accumulation": 4, "activation_checkpointing": False}
VARIANTS: Final = {
    "flat, 64 rows, no checkpointing": {**_FLAT, "steps": 16},
    "plain TRL, 16 rows, checkpointing": {
        "engine": "plain", "batch_size": 16, "gradient_accumulation": 1, "activation_checkpointing": True, "steps": 11,
    },
    "flat, 64 rows, checkpointing, 16 GiB": {
        **_FLAT, "activation_checkpointing": True, "memory_gib": 16.0, "steps": 9,
    },
    "flat, 64 rows, auto, 16 GiB": {**_FLAT, "activation_checkpointing": "auto", "memory_gib": 16.0, "steps": 9},
    "flat, auto, 8 rows (the plan's step)": {
        "engine": "flat", "batch_size": 4, "gradient_accumulation": 2, "activation_checkpointing": "auto", "steps": 15,
    },
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


def useful_flops(shape: dict[str, Any]) -> float:
    """FLOPs a token: forward and one product of the backward pass (frozen weights have no gradient), no recompute."""
    return 4.0 * sum(multiplied_weights(shape))


def multiplied_weights(shape: dict[str, Any]) -> tuple[int, int]:
    """Weights that every token is multiplied by: the trunk's, and the head's where logits are needed."""
    head = shape["hidden_size"] // shape["num_attention_heads"] * shape["num_key_value_heads"]
    layer = shape["hidden_size"] * (2 * shape["hidden_size"] + 2 * head + 3 * shape["intermediate_size"])
    return shape["num_hidden_layers"] * layer, shape["vocab_size"] * shape["hidden_size"]


def measure_matmul(device: str) -> float:
    """FLOP/s of a large bfloat16 product; 0 without a GPU."""
    if device != "cuda":
        return 0.0
    a, b = (torch.randn(8192, 8192, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(5):
        a @ b
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(30):
        a @ b
    torch.cuda.synchronize()
    return 30 * 2 * 8192**3 / (time.perf_counter() - start)


def build_model(shape: dict[str, Any], device: str) -> Any:
    """A Llama with random NF4 weights (double quantisation), made where it is used."""
    import bitsandbytes as bnb
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = LlamaConfig(**shape, attn_implementation="sdpa")
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    torch.manual_seed(0)
    for module in list(model.model.layers.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.Linear):
                weight = 0.02 * torch.randn(child.weight.shape, dtype=dtype, device=device)
                layer = bnb.nn.Linear4bit(
                    child.in_features,
                    child.out_features,
                    bias=False,
                    compute_dtype=dtype,
                    quant_type="nf4",
                    device="meta",
                )
                layer.weight = bnb.nn.Params4bit(
                    weight, requires_grad=False, quant_type="nf4", compress_statistics=True
                ).to(device)
                setattr(module, name, layer)
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.is_meta:
                values = torch.ones if parameter.dim() == 1 else torch.randn
                tensor = values(parameter.shape, dtype=dtype, device=device) * (1.0 if parameter.dim() == 1 else 0.02)
                setattr(module, name, torch.nn.Parameter(tensor, requires_grad=False))
    model.model.rotary_emb = LlamaRotaryEmbedding(config).to(device)
    model.is_loaded_in_4bit = True
    model.hf_device_map = {"": 0 if device == "cuda" else "cpu"}
    return model.eval()


def make_rows(count: int, vocabulary: int) -> LabelledRows:
    """Rows of log-normal length, mean 258 and at most 1,024 tokens, a third of each the prompt."""
    draw = np.random.default_rng(0)
    lengths = np.exp(draw.normal(0.0, 0.6, count))
    lengths = np.clip(lengths / lengths.mean() * MEAN_TOKENS, 8, 1024)
    lengths = np.maximum(8, np.round(lengths * MEAN_TOKENS / lengths.mean())).clip(8, 1024).astype(int)
    ids = [draw.integers(3, vocabulary, length).tolist() for length in lengths]
    labels = [[IGNORED] * (len(row) // 3) + row[len(row) // 3 :] for row in ids]
    kind = pa.list_(pa.int32())
    table = pa.table({"input_ids": pa.array(ids, kind), "labels": pa.array(labels, kind)})
    answers = sum(len(row) - len(row) // 3 for row in ids)
    return LabelledRows(table, int(lengths.sum()), answers, int(lengths.max()))


def make_tokenizer() -> Any:
    """Three tokens: the trainer only asks for the padding's."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"<pad>": 0, "<s>": 1, "</s>": 2}, unk_token="</s>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def measure(name: str, shape: dict[str, Any], device: str, settings: dict[str, Any], *, profile: bool) -> Measured:
    """Train for some steps through this project's own trainer; the first ones are not counted."""
    steps = settings.pop("steps")
    train = TrainConfig(**_COMMON, **settings, max_steps=steps)
    placement = Placement(device, torch.bfloat16 if device == "cuda" else torch.float32, "nf4")  # type: ignore[arg-type]
    rows = make_rows(train.batch_size * train.gradient_accumulation * steps, shape["vocab_size"])
    few = LabelledRows(rows.table.slice(0, 4), 0, 0, rows.longest)
    notes: list[str] = []
    with tempfile.TemporaryDirectory() as folder, track("training", steps) as advance:
        recipe = Recipe(
            train=train,
            placement=placement,
            optimizer=train.optimizer,
            schedule=plan_steps(rows.count, train),
            train_rows=rows,
            validation_rows=few,
            checkpoints=Path(folder),
            engine=choose_engine(train, placement, lambda what, why: notes.append(f"{what}: {why}")),
            on_less_memory=notes.append,
        )
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
        counted = [entry for entry in trainer.state.log_history if "tokens" in entry][WARM_UP:]
        _log.info("tokens/s of each step: %s", [round(entry["tokens"] / entry["seconds"]) for entry in counted])
        speed = sum(entry["tokens"] for entry in counted) / sum(entry["seconds"] for entry in counted)
        if profile and device == "cuda":
            print(profile_pass(trainer))
    del trainer
    gc.collect()
    torch.cuda.empty_cache()  # does nothing without a GPU
    return Measured(name, speed, peak, "; ".join(notes))


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
