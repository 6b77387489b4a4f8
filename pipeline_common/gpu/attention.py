"""Rows of different lengths in one flat batch: no padding, and no token of one row sees another.

R rows are laid end to end as one sequence [1, T] with positions that restart at every row. The boundaries travel
through the model's forward as keyword arguments (transformers' `FlashAttentionKwargs`) to the attention function
registered here, which is torch's own variable-length kernel on CUDA and exact attention row by row elsewhere.

    model.set_attn_implementation(register_varlen())
    batch = flatten_rows(rows).to(device)
    hidden = model.model(**batch.model_inputs()).last_hidden_state

Legend: R rows, T tokens of all of them, H query heads, G key/value heads, D size of a head.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

import torch
from torch.nn import functional
from transformers import AttentionInterface

VARLEN: Final = "varlen"
"""Name of the attention function in transformers' registry."""
_KERNEL_DTYPES: Final = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class VarlenBatch:
    """R rows laid end to end."""

    input_ids: torch.Tensor
    """int64 [1, T]."""
    position_ids: torch.Tensor
    """int64 [1, T]: each row's own 0, 1, 2, ..."""
    cu_seqlens: torch.Tensor
    """int32 [R + 1]: where each row begins, and T."""
    lengths: tuple[int, ...]
    """R lengths, on the host: nobody has to wait for the device to learn them."""

    @property
    def max_length(self) -> int:
        """Tokens of the longest row."""
        return max(self.lengths)

    @property
    def tokens(self) -> int:
        """T."""
        return sum(self.lengths)

    def to(self, device: torch.device | str) -> VarlenBatch:
        """The same batch on `device`; from pinned memory without waiting."""
        return replace(
            self,
            input_ids=self.input_ids.to(device, non_blocking=True),
            position_ids=self.position_ids.to(device, non_blocking=True),
            cu_seqlens=self.cu_seqlens.to(device, non_blocking=True),
        )

    def model_inputs(self) -> dict[str, Any]:
        """Keyword arguments for a transformers model whose attention is `VARLEN`."""
        return {
            "input_ids": self.input_ids,
            "position_ids": self.position_ids,
            "cu_seq_lens_q": self.cu_seqlens,
            "cu_seq_lens_k": self.cu_seqlens,
            "max_length_q": self.max_length,
            "max_length_k": self.max_length,
            "row_lengths": self.lengths,
            "use_cache": False,
        }


def flatten_rows(rows: Sequence[Sequence[int] | torch.Tensor], device: torch.device | str = "cpu") -> VarlenBatch:
    """Lay rows end to end.

    Args:
        rows: R >= 1 rows of at least one token id each.
        device: where the tensors go.

    Raises:
        ValueError: there are no rows, or one is empty.
    """
    lengths = tuple(len(row) for row in rows)
    if not lengths or min(lengths) == 0:
        raise ValueError(f"expected at least one row and no empty one, came lengths {lengths[:10]}")
    ids = torch.cat([torch.as_tensor(row, dtype=torch.int64) for row in rows])
    ends = torch.tensor((0, *lengths)).cumsum(0)
    starts = ends[:-1].repeat_interleave(torch.tensor(lengths))
    positions = torch.arange(ids.numel()) - starts
    batch = VarlenBatch(ids[None], positions[None], ends.to(torch.int32), lengths)
    return batch if str(device) == "cpu" else batch.to(device)


def split_by_tokens(lengths: Sequence[int], budget: int) -> list[range]:
    """Cut rows, in their order, into as few runs as a token budget allows, and those into runs of like size.

    Filled to the brim one after the other, the last run would often hold a few rows only, and a pass over few rows
    costs almost as much as one over many.

    Args:
        lengths: tokens of each row.
        budget: tokens of one run; a longer row is a run of its own.

    Returns:
        Ranges of row indices, in order, each row in exactly one; the largest holds as few tokens as can be.
    """
    runs = _fill(lengths, budget)
    low, high = max(lengths, default=0), max((sum(lengths[row] for row in run) for run in runs), default=0)
    while low < high:
        middle = (low + high) // 2
        if len(_fill(lengths, middle)) > len(runs):
            low = middle + 1
        else:
            high = middle
    return _fill(lengths, high)


def _fill(lengths: Sequence[int], budget: int) -> list[range]:
    cuts, filled = [0], 0
    for row, length in enumerate(lengths):
        if filled and filled + length > budget:
            cuts.append(row)
            filled = 0
        filled += length
    return [range(start, end) for start, end in pairwise([*cuts, len(lengths)]) if end > start]


def kernel_failure() -> str | None:
    """Why torch's variable-length kernel cannot run on this machine's GPU; None when it can."""
    if _kernel() is None:
        return f"torch {torch.__version__} has no torch.nn.attention.varlen"
    if not torch.cuda.is_available():
        return "torch sees no GPU"
    if torch.cuda.get_device_capability() < (8, 0):
        return f"{torch.cuda.get_device_name()} is older than the kernel's oldest (Ampere)"
    return None


def register_varlen() -> str:
    """Make `VARLEN` known to transformers.

    Returns:
        The name for `model.set_attn_implementation`.
    """
    AttentionInterface.register(VARLEN, _attend)
    # No mask is registered under the name: then transformers builds none, and does not look at positions, for which the
    # host would have to wait. Boundaries are all the masking there is.
    return VARLEN


def _attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    row_lengths: tuple[int, ...] | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention inside each row: query [1, H, T, D], key and value [1, G, T, D] -> [1, T, H, D].

    Raises:
        ValueError: the rows' boundaries are missing, or dropout on attention weights is asked for.
    """
    if cu_seq_lens_q is None or max_length_q is None or attention_mask is not None or query.shape[0] != 1:
        raise ValueError(
            f"attention {VARLEN!r} takes one flat batch with cu_seq_lens_q and max_length_q and no mask; came query "
            f"{tuple(query.shape)}; use VarlenBatch.model_inputs(), or set_attn_implementation('sdpa') for padded rows"
        )
    if dropout:
        raise ValueError(f"attention {VARLEN!r} has no dropout on attention weights, came {dropout}")
    kernel = _kernel()
    if kernel is not None and query.is_cuda and query.dtype in _KERNEL_DTYPES and kernel_failure() is None:
        # Squeezed, not indexed: the gradient of an index is a copy into zeros, that of these is a view.
        flat = kernel(
            query.transpose(1, 2).squeeze(0),
            key.transpose(1, 2).squeeze(0),
            value.transpose(1, 2).squeeze(0),
            cu_seq_lens_q,
            cu_seq_lens_q,
            max_length_q,
            max_length_q,
            scale=scaling,
        )
        return flat[None], None
    lengths = row_lengths or tuple(length for length in cu_seq_lens_q.diff().tolist() if length)
    return attend_rows(query, key, value, lengths, scaling).transpose(1, 2), None


def attend_rows(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Sequence[int], scaling: float | None
) -> torch.Tensor:
    """Causal attention row by row: exact everywhere, fast nowhere; query [1, H, T, D] -> [1, H, T, D]."""
    parts = zip(
        query.split(list(lengths), dim=2),
        key.split(list(lengths), dim=2),
        value.split(list(lengths), dim=2),
        strict=True,
    )
    rows = [
        functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=True)
        for q, k, v in parts
    ]
    return torch.cat(rows, dim=2)


@functools.cache
def _kernel() -> Callable[..., torch.Tensor] | None:
    """The kernel of torch, made causal the way this version spells it."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    parameters = inspect.signature(varlen_attn).parameters
    settings: dict[str, Any] = {"window_size": (-1, 0)} if "window_size" in parameters else {"is_causal": True}
    if "enable_gqa" in parameters:
        settings["enable_gqa"] = True
    return functools.partial(varlen_attn, **settings)
