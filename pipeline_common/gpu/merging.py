"""Base and adapter as one plain model, and what merging them changes.

A 4-bit base cannot take an adapter up: the sum would have to be rounded to 4 bits again, and most of a fine-tune is
smaller than that rounding. So the base is dequantised first; the merged model is the *quantised* base's weights in the
run's own arithmetic plus the adapter, not the original weights plus the adapter.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
import transformers

from pipeline_common.gpu.models import Placement, attach_adapter, load_base
from pipeline_common.measures import Measured

MAX_SHARD: Final = "5GB"


class MergeEffect(Measured):
    """How the merged model differs from base + adapter, at the last token of some prompts."""

    prompts: int
    max_logit_difference: float
    """Largest absolute difference of any token's logit, any prompt; logits have no unit."""
    mean_logit_difference: float
    logit_spread: float
    """Standard deviation of the unmerged logits over the tokens: what the differences are small or large against."""
    adapter_logit_change: float
    """Mean absolute difference between base and base + adapter: what merging must preserve."""
    changed_first_tokens: int
    """Prompts whose most probable next token is another one."""


def merge_adapter(
    base: Path, adapter: Path, placement: Placement, prompts: Sequence[Sequence[int]], target: Path
) -> MergeEffect:
    """Write the merged model (safetensors and config.json) into `target`, and measure what merging changed.

    Args:
        base: folder of the base model.
        adapter: PEFT's folder.
        placement: where and in which arithmetic; the base is quantised as the adapter was trained on it.
        prompts: token ids of at least one prompt.
        target: folder to write to.

    Raises:
        InputError: base or adapter do not load, or do not fit each other.
    """
    # What the libraries tell about their own insides: progress, names that will change, where they dequantise to.
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    unmerged = attach_adapter(load_base(base, placement), adapter)
    before = last_logits(unmerged, prompts)
    with unmerged.disable_adapter():
        without = last_logits(unmerged, prompts)
    del unmerged
    plain = load_base(base, placement)
    if placement.quantization == "nf4":
        plain = plain.dequantize(dtype=placement.compute_dtype)
    merged = attach_adapter(plain, adapter).merge_and_unload(safe_merge=True)
    after = last_logits(merged, prompts)
    merged.save_pretrained(target, max_shard_size=MAX_SHARD)
    difference = (after - before).abs()
    return MergeEffect(
        prompts=len(prompts),
        max_logit_difference=float(difference.max()),
        mean_logit_difference=float(difference.mean()),
        logit_spread=float(before.std(dim=1).mean()),
        adapter_logit_change=float((before - without).abs().mean()),
        changed_first_tokens=int((after.argmax(dim=1) != before.argmax(dim=1)).sum()),
    )


def last_logits(model: Any, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
    """Logits after each prompt, one prompt at a time, so that no padding is among them [N, vocabulary], float32."""
    rows = []
    with torch.inference_mode():
        for token_ids in prompts:
            ids = torch.tensor([list(token_ids)], device=model.device)
            rows.append(model(input_ids=ids, use_cache=False).logits[0, -1].float().cpu())
    return torch.stack(rows)
