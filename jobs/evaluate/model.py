"""Base and tuned model from one load: the adapter switched off is the base, bit by bit.

Everything that needs torch in this stage is here, in the files beside it named `model_...`, and in the local judge;
`stage.run` imports them when it really runs.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from jobs.evaluate.batching import MOST_BATCH_TOKENS, ModelShape, auto_batch_tokens
from jobs.evaluate.sharing import ROLES
from pipeline_common.errors import ConfigError, TransientError
from pipeline_common.gpu.models import Placement, attach_adapter, load_base, load_tokenizer
from pipeline_common.logs import get_logger
from pipeline_common.prompts import PromptFormat, stop_ids

_log = get_logger(__name__)


@dataclass(frozen=True)
class ModelPair:
    """A base with its adapter, and what is needed to speak to them."""

    tokenizer: Any
    peft: Any
    placement: Placement
    stop_ids: tuple[int, ...]

    @property
    def pad_id(self) -> int:
        """The padding token."""
        return int(self.tokenizer.pad_token_id)

    @contextmanager
    def playing(self, role: str) -> Iterator[Any]:
        """The causal language model of a role in `ROLES`, in its arithmetic and without gradients."""
        if role not in ROLES:
            raise ValueError(f"{role!r} is none of {ROLES}")
        switch = self.peft.disable_adapter() if role == "base" else nullcontext()
        with switch, torch.inference_mode(), arithmetic(self.placement), explain_memory():
            yield self.peft.get_base_model()


def load_pair(base: Path, adapter: Path, placement: Placement, prompt_format: PromptFormat) -> ModelPair:
    """Load the base once and put the adapter on it.

    Args:
        base: the base model's folder.
        adapter: the adapter's folder.
        placement: device, arithmetic, quantisation; the same for both roles.
        prompt_format: of the prompts, for the tokens that end an answer.

    Raises:
        InputError: a folder does not load, or the adapter does not fit (see `attach_adapter`).
    """
    tokenizer = load_tokenizer(base)
    with explain_memory():
        model = load_base(base, placement)
        ends = stop_ids(tokenizer, getattr(model.generation_config, "eos_token_id", None), prompt_format)
        peft = attach_adapter(model, adapter)
    return ModelPair(tokenizer, peft, placement, tuple(ends))


def arithmetic(placement: Placement) -> Any:
    """A context: bfloat16 autocast on a GPU, else nothing.

    PEFT keeps the adapters in float32 and would cast every input up without it.
    """
    if placement.device == "cuda" and placement.compute_dtype == torch.bfloat16:
        return torch.autocast("cuda", torch.bfloat16)
    return nullcontext()


@contextmanager
def explain_memory() -> Iterator[None]:
    """Say which setting to change when the GPU's memory does not suffice."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TransientError(
            "the GPU's memory does not suffice; lower evaluate.batch_tokens, use model.quantization=nf4, lower "
            "evaluate.max_new_tokens, or free the GPU "
            f"({str(error).splitlines()[0]})"
        ) from error


def resolve_batch_tokens(setting: int | Literal["auto"], model: Any, most: int = MOST_BATCH_TOKENS) -> int:
    """Tokens of a batch: as set, or what the memory that is free now allows.

    Args:
        setting: `evaluate.batch_tokens`.
        model: a causal language model of transformers, loaded.
        most: see `auto_batch_tokens`.
    """
    if setting != "auto":
        return setting
    config, device = model.config, model.device
    free = None
    if device.type == "cuda":
        # What torch holds without using it is as good as free.
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        free = torch.cuda.mem_get_info(device)[0] + unused
    heads = int(config.num_attention_heads)
    head_width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    shape = ModelShape(
        width=int(config.hidden_size),
        mlp_width=int(config.intermediate_size),
        layers=int(config.num_hidden_layers),
        key_value_width=int(getattr(config, "num_key_value_heads", None) or heads) * head_width,
        item_bytes=model.dtype.itemsize,
    )
    tokens = auto_batch_tokens(shape, free, most)
    _log.debug("batches of at most %d tokens; free bytes on the GPU: %s", tokens, free)
    return tokens


def pad_left(sequences: Sequence[Sequence[int]], pad_id: int, device: str) -> tuple[Any, Any]:
    """Token ids and mask [B, T] of B sequences, padded on the left."""
    width = max(len(ids) for ids in sequences)
    tokens = [[pad_id] * (width - len(ids)) + list(ids) for ids in sequences]
    mask = [[0] * (width - len(ids)) + [1] * len(ids) for ids in sequences]
    return torch.tensor(tokens, device=device), torch.tensor(mask, device=device)


def pad_right(sequences: Sequence[Sequence[int]], pad_id: int, device: str) -> Any:
    """Token ids [B, T] of B sequences, padded on the right."""
    width = max(len(ids) for ids in sequences)
    return torch.tensor([list(ids) + [pad_id] * (width - len(ids)) for ids in sequences], device=device)


def name_gpus(wanted: int) -> list[str]:
    """What `CUDA_VISIBLE_DEVICES` must be in each of so many processes, for a GPU each.

    Raises:
        ConfigError: there are fewer.
    """
    there = torch.cuda.device_count()
    if wanted > there:
        raise ConfigError(
            f"runtime.gpus={wanted}, but this process sees {there} GPU(s) (nvidia-smi, CUDA_VISIBLE_DEVICES); set "
            f"runtime.gpus={there} or less"
        )
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return (named or [str(index) for index in range(there)])[:wanted]


def free_memory() -> None:
    """Give back what dropped models held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
