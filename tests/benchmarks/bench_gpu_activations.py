"""Activations and answers of a Llama-3-8B shape on one GPU, beside how they are read without any of this.

python -m tests.benchmarks.bench_gpu_activations [--prompts 4096] [--layers 32]
python -m tests.benchmarks.bench_gpu_activations --gpus 2    # instead: both roles, shared by 1 and by 2 GPUs
python -m tests.benchmarks.bench_gpu_activations --gpus 2 --prompts 512 4096 --batch-tokens 16384 8192 4096

Random weights, made on the card: speed does not depend on the values. 4-bit base (NF4, double quantisation), an
adapter of rank 16 on all seven matrices, prompts of mean 46 tokens, states of all layers, mean-pooled.
"""

from __future__ import annotations

import argparse
import gc
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from jobs.evaluate.model import ModelPair, resolve_batch_tokens
from jobs.evaluate.model_flat_sweep import sweep_flat
from jobs.evaluate.model_fused import liger_kernels
from jobs.evaluate.model_generation import generate
from jobs.evaluate.model_sweep import sweep
from pipeline_common.gpu.models import Placement
from pipeline_common.provenance import installed_version
from tests.benchmarks.random_llama import measure_matmul

VOCABULARY = 128_256
WEIGHTS_OF_A_LAYER = 4096 * (2 * 4096 + 2 * 1024 + 3 * 14336)
GIB = 1 << 30


def build_pair(layers: int) -> ModelPair:
    """Llama-3-8B's shape, quantised layer by layer on the card, with an adapter whose B matrices are not zero."""
    from bitsandbytes.nn import Linear4bit, Params4bit
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=4096, intermediate_size=14336, num_hidden_layers=layers,
        num_attention_heads=32, num_key_value_heads=8, max_position_embeddings=8192, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
        bos_token_id=128_000, eos_token_id=128_001, attn_implementation="sdpa",
    )  # fmt: skip
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(torch.bfloat16)

    def random(shape: Any) -> torch.Tensor:
        return torch.randn(shape, dtype=torch.bfloat16, device="cuda") * 0.02

    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear) and child is not model.lm_head:
                quantised = Linear4bit(
                    child.in_features, child.out_features, bias=False, compute_dtype=torch.bfloat16,
                    quant_type="nf4", device="meta",
                )  # fmt: skip
                weight = Params4bit(random(child.weight.shape), requires_grad=False, quant_type="nf4")
                quantised.weight = weight.cuda()
                setattr(parent, name, quantised)
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.is_meta:
                value = torch.ones(parameter.shape, dtype=torch.bfloat16, device="cuda")
                setattr(module, name, nn.Parameter(value if parameter.dim() == 1 else random(parameter.shape)))
    model.model.rotary_emb = LlamaRotaryEmbedding(config).cuda()
    model.requires_grad_(False).eval()
    model.is_loaded_in_4bit = True
    lora = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules="all-linear", task_type="CAUSAL_LM")
    peft = get_peft_model(model, lora).cuda().eval().requires_grad_(False)
    for name, parameter in peft.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.01)
    return ModelPair(_Tokenizer(), peft, Placement("cuda", torch.bfloat16, "nf4"), (128_001,))


class _Tokenizer:
    """There are no words behind random tokens."""

    pad_token_id = 128_002
    bos_token_id = 128_000

    def decode(self, ids: list[int], **_: Any) -> str:
        return ""


def made_prompts(count: int) -> list[list[int]]:
    """Log-normal lengths of mean 46, a BOS first."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(46) - 0.125, 0.5, count), 8, 512).astype(int)
    return [[128_000, *rng.integers(0, 128_000, size - 1).tolist()] for size in lengths]


def naive_sweep(model: Any, prompts: list[list[int]]) -> np.ndarray:
    """As it is done without care: batches of 8 in the order they come, every state kept, with the head."""
    found = []
    for first in range(0, len(prompts), 8):
        rows = prompts[first : first + 8]
        width = max(len(ids) for ids in rows)
        tokens = torch.tensor([ids + [128_002] * (width - len(ids)) for ids in rows], device="cuda")
        mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in rows], device="cuda")
        states = torch.stack(model(input_ids=tokens, attention_mask=mask, output_hidden_states=True).hidden_states, 1)
        weights = mask.float()
        weights[:, 0] = 0
        pooled = (states.float() * weights[:, None, :, None]).sum(2) / weights.sum(1)[:, None, None]
        found.append(pooled.cpu().numpy())
    return np.concatenate(found)


def timed(run: Callable[[], Any]) -> tuple[Any, float, float]:
    """Result, seconds and peak GiB."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.synchronize()
    started = time.perf_counter()
    result = run()
    torch.cuda.synchronize()
    return result, time.perf_counter() - started, torch.cuda.max_memory_allocated() / GIB


def difference(found: np.ndarray, reference: np.ndarray) -> str:
    """Frobenius norm of the difference over the reference's, worst layer."""
    layers = range(reference.shape[1])
    worst = max(np.linalg.norm(found[:, i] - reference[:, i]) / np.linalg.norm(reference[:, i]) for i in layers)
    return f"{worst:.2%}"


def print_profile(run: Callable[[], Any]) -> None:
    """The kernels that take most of the GPU's time, each with its share."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        run()
        torch.cuda.synchronize()
    kernels = sorted(profiler.key_averages(), key=lambda one: -one.self_device_time_total)
    total = sum(one.self_device_time_total for one in kernels)
    for one in kernels[:16]:
        print(f"    {one.self_device_time_total / total:6.1%} {one.count:6d} x {one.key[:110]}", flush=True)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, nargs="+", default=[4096], help="several: only with --gpus")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--batch-tokens", type=int, nargs="+", default=[])
    parser.add_argument("--profile", action="store_true", help="where a flattened sweep's GPU time goes, by kernel")
    parser.add_argument("--gpus", type=int, default=0, help="only how both roles are shared by 1 and by so many GPUs")
    options = parser.parse_args()
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    if options.gpus:
        from tests.benchmarks.gpu_shards import print_scaling

        print_scaling(options.gpus, options.prompts, options.layers, options.batch_tokens or ["auto"])
        return
    if len(options.prompts) > 1:
        parser.error("several numbers of prompts are for --gpus")
    started = time.perf_counter()
    pair = build_pair(options.layers)
    rate = measure_matmul("cuda")
    names = ("transformers", "peft", "bitsandbytes", "liger-kernel")
    versions = ", ".join(f"{name} {installed_version(name)}" for name in names)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {versions} "
          f"(Liger {'used' if liger_kernels() else 'not used'}); bf16 matrix product {rate / 1e12:.0f} TFLOP/s; "
          f"model made in {time.perf_counter() - started:.0f} s\n", flush=True)  # fmt: skip
    prompts = made_prompts(options.prompts[0])
    few = prompts[:400]
    trunk = options.layers * WEIGHTS_OF_A_LAYER

    def row(name: str, role: str, rows: list[list[int]], run: Callable[[Any], Any]) -> Any:
        with pair.playing(role) as model:
            result, seconds, peak = timed(lambda: run(model))
        tokens = sum(len(ids) for ids in rows)
        share = 2 * trunk * tokens / seconds / rate
        print(f"| {name} | {role} | {len(rows) / seconds:,.0f} | {tokens / seconds:,.0f} | {share:.3f} | {peak:.1f} |",
              flush=True)  # fmt: skip
        return result

    def ours(budget: int | None = None) -> Callable[[Any, list[list[int]]], Any]:
        def run(model: Any, rows: list[list[int]]) -> Any:
            tokens = budget or resolve_batch_tokens("auto", model)
            return sweep_flat(model, rows, pooling="mean", bos_id=128_000, batch_tokens=tokens)

        return run

    def simple(model: Any, rows: list[list[int]], budget: int = 8192) -> Any:
        return sweep(model, rows, pooling="mean", pad_id=128_002, bos_id=128_000, batch_tokens=budget)

    print("| activations | role | prompts/s | tokens/s | share | peak GiB |\n| --- | --- | ---: | ---: | ---: | ---: |")
    for role in ("base", "tuned"):
        with pair.playing(role) as model:
            naive_sweep(model, few[:80])
            simple(model, few)
            ours()(model, few)
        reference = row("naive: batch 8, every state kept, with the head", role, few,
                        lambda model: naive_sweep(model, few))  # fmt: skip
        padded = row("padded batches (`evaluate.sweep=simple`)", role, few, lambda model: simple(model, few))
        row("**flattened batches, tokens by free memory**", role, prompts, lambda model: ours()(model, prompts))
        for budget in options.batch_tokens:
            row(f"flattened batches, {budget:,} tokens", role, prompts,
                lambda model, budget=budget: ours(budget)(model, prompts))  # fmt: skip
        with pair.playing(role) as model:
            flat, other = ours()(model, few), simple(model, few, 2048)
        print(f"<!-- {role}: worst layer's difference from the naive states: flattened {difference(flat, reference)}, "
              f"padded {difference(padded, reference)}; padded with other batches from padded "
              f"{difference(other, padded)} -->", flush=True)  # fmt: skip
        if options.profile:
            with pair.playing(role) as model:
                print_profile(lambda model=model: ours()(model, prompts[:1500]))
    print("\n| 128 answers of 64 tokens | role | answers/s | new tokens/s | peak GiB |")
    print("| --- | --- | ---: | ---: | ---: |")
    for role in ("base", "tuned"):
        found = {}
        for name, decoder in (("transformers' loop", "library"), ("**recorded steps**", "steps")):
            with pair.playing(role) as model:

                def answer(count: int, decoder: str = decoder, model: Any = model) -> Any:
                    return generate(model, pair.tokenizer, prompts[:count], stop_ids=(128_001,), pad_id=128_002,
                                    max_new_tokens=64, batch_tokens=32_768, decoder=decoder)  # type: ignore[arg-type]  # fmt: skip

                found[decoder], seconds, peak = timed(lambda answer=answer: answer(128))
            print(f"| {name} | {role} | {128 / seconds:.1f} | {128 * 64 / seconds:,.0f} | {peak:.1f} |", flush=True)
        same = sum(a.token_ids[:8] == b.token_ids[:8] for a, b in zip(*found.values(), strict=True))
        print(f"<!-- {role}: {same} of 128 answers begin with the same 8 tokens -->", flush=True)


if __name__ == "__main__":
    main()
