"""Loss of the flat engine: the head is multiplied with the positions that predict an answer token, and no others.

Logits are made chunk by chunk and never kept: their gradient is taken in the forward pass, while a chunk is there.

Legend: M target positions, D width of the model, V size of the vocabulary.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch.nn import functional

from jobs.train.rows import IGNORED

# At V = 128,256 a chunk's float32 logits and their gradient take 1 GiB.
CHUNK: Final = 1024


class ChunkedCrossEntropy(torch.autograd.Function):  # type: ignore[misc]  # the library is untyped here
    """Summed cross-entropy of a frozen head; exact, in any arithmetic that a matrix product takes."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor
    ) -> torch.Tensor:
        """Nats over all M positions, float32: hidden [M, D], weight [V, D], bias [V], targets [M].

        Where a target is `IGNORED`, nats and gradient are zero.
        """
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        nats = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for start in range(0, hidden.shape[0], CHUNK):
            part = slice(start, start + CHUNK)
            logits = functional.linear(hidden[part], weight, bias).float()
            nats += functional.cross_entropy(logits, targets[part], reduction="sum", ignore_index=IGNORED)
            if gradient is not None:
                slope = logits.softmax(dim=-1)
                counted = targets[part] != IGNORED
                slope[torch.arange(slope.shape[0], device=slope.device), targets[part].clamp(min=0)] -= 1.0
                gradient[part] = (slope.to(weight.dtype) @ weight) * counted[:, None]
        ctx.gradient = gradient
        return nats

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        """The kept gradient, scaled."""
        # In float32: a rounded slope would scale all gradients by the same error.
        return (ctx.gradient * slope.float()[None, None]).to(ctx.gradient.dtype), None, None, None


def sum_nats(hidden: torch.Tensor, head: torch.nn.Module, targets: torch.Tensor, *, liger: bool) -> torch.Tensor:
    """Negative log-likelihood, summed.

    Args:
        hidden: [M, D], the states that predict `targets`.
        head: the frozen output layer.
        targets: int64 [M].
        liger: use Liger's kernel (CUDA only).

    Returns:
        Scalar, nats, float32.
    """
    weight, bias = head.weight, getattr(head, "bias", None)
    hidden = hidden.to(weight.dtype)
    with torch.autocast(hidden.device.type, enabled=False):
        if liger:
            from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

            fused: torch.Tensor = LigerFusedLinearCrossEntropyLoss(reduction="sum")(weight, hidden, targets, bias)
            return fused
        exact: torch.Tensor = ChunkedCrossEntropy.apply(hidden, weight, bias, targets)
        return exact
