"""A Llama with random weights, rows for it and a recipe to train it by: speed does not depend on what it says.

Rows have log-normal lengths with a mean of 258 tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import torch

from jobs.train.engine import choose_engine
from jobs.train.recipe import Recipe
from jobs.train.rows import IGNORED, LabelledRows
from jobs.train.schedule import plan_steps
from pipeline_common.config import TrainConfig
from pipeline_common.gpu.models import Placement

MEAN_TOKENS: Final = 258
WARM_UP: Final = 3
"""Steps that are not counted."""
COMMON: Final = {"learning_rate": 2e-4, "save_steps": 10_000, "optimizer": "paged_adamw_32bit", "epochs": 100.0}
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


def make_recipe(
    train: TrainConfig,
    shape: Mapping[str, Any],
    device: str,
    folder: Path,
    degrade: Callable[[str, str], None],
    **changes: Any,
) -> Recipe:
    """The recipe of a training on made rows, with a few of them to validate on.

    Args:
        train: with `max_steps`; there are rows for so many steps.
        shape: settings of the Llama.
        device: `cpu` or `cuda`.
        folder: for checkpoints.
        degrade: told of what the engine lacks.
        changes: further fields of `Recipe`.
    """
    assert train.max_steps is not None
    placement = Placement(device, torch.bfloat16 if device == "cuda" else torch.float32, "nf4")  # type: ignore[arg-type]
    rows = make_rows(train.batch_size * train.gradient_accumulation * train.max_steps, shape["vocab_size"])
    return Recipe(
        train=train,
        placement=placement,
        optimizer=train.optimizer,
        schedule=plan_steps(rows.count, train),
        train_rows=rows,
        validation_rows=LabelledRows(rows.table.slice(0, 4), 0, 0, rows.longest),
        checkpoints=folder,
        engine=choose_engine(train, placement, degrade),
        **changes,
    )


def counted_steps(log: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The log's entries of steps after the first ones."""
    return [entry for entry in log if "tokens" in entry][WARM_UP:]


def mean_speed(steps: Sequence[Mapping[str, Any]]) -> float:
    """Tokens per second over some steps."""
    return float(sum(entry["tokens"] for entry in steps) / sum(entry["seconds"] for entry in steps))
