"""Three products with a dropped-out matrix, for up to `MOST_MEMBERS` adapters that read the same input at once.

Each member has a mask of its own. On CUDA with Triton the masks are drawn in registers and kept as bits; elsewhere a
mask is a matrix that lives as long as one product, and is drawn again from the same seed.

Legend: T tokens, K inputs, G members, r rank; drop(x) is x with entries zeroed with probability p and the rest over
1 - p; a [G r, K] holds the members' A one below the other, inner and below [T, G r] theirs side by side.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Final

import torch

MOST_MEMBERS: Final = 3


@dataclass(frozen=True)
class Masks:
    """What is needed to apply the same dropout again."""

    members: int
    """G."""
    drop: float
    """p."""
    seed: int
    kept: torch.Tensor | None = None
    """uint8 [G, T, K / 8], one bit an entry, 1 = kept; None: drawn again from the seed."""
    seed_at: torch.Tensor | None = None
    """The seed on the device, int32 [1], where it is there already."""


def project(x: torch.Tensor, a: torch.Tensor, masks: Masks, scale: float) -> tuple[torch.Tensor, Masks]:
    """Scale * drop_g(x) A_g^T, side by side: x [T, K], a [G r, K] -> [T, G r]; and the masks to go on with."""
    if not masks.drop:
        return (x @ a.t()).mul_(scale), masks
    kernels = _kernels(x, a.shape[0] // masks.members)
    if kernels is not None:
        seed = (
            torch.tensor([masks.seed], dtype=torch.int32, device=x.device) if masks.seed_at is None else masks.seed_at
        )
        inner, kept = kernels.project(x, a, masks.members, masks.drop, seed, scale)
        return inner, Masks(masks.members, masks.drop, masks.seed, kept)
    parts = [_drop(x, masks, member) @ part.t() for member, part in enumerate(a.chunk(masks.members))]
    return torch.cat(parts, dim=1).mul_(scale), masks


def outer(below: torch.Tensor, x: torch.Tensor, masks: Masks, scale: float) -> torch.Tensor:
    """A's gradient, scale * below_g^T drop_g(x): below [T, G r], x [T, K] -> [G r, K]."""
    if not masks.drop:
        return (below.t() @ x).mul_(scale)
    if masks.kept is not None:
        fast: torch.Tensor = _loaded().outer(below, x, masks.kept, masks.drop, scale)
        return fast
    parts = [part.t() @ _drop(x, masks, member) for member, part in enumerate(below.chunk(masks.members, dim=1))]
    return torch.cat(parts).mul_(scale)


def spread(below: torch.Tensor, a: torch.Tensor, masks: Masks, scale: float) -> torch.Tensor:
    """The adapters' part of x's gradient, scale * the sum of drop_g(below_g A_g): -> [T, K]."""
    if not masks.drop:
        return (below @ a).mul_(scale)
    if masks.kept is not None:
        fast: torch.Tensor = _loaded().spread(below, a, masks.kept, masks.drop, scale)
        return fast
    pairs = zip(below.chunk(masks.members, dim=1), a.chunk(masks.members), strict=True)
    parts = [_drop(one @ other, masks, member) for member, (one, other) in enumerate(pairs)]
    return functools.reduce(torch.Tensor.add_, parts).mul_(scale)


def _drop(x: torch.Tensor, masks: Masks, member: int) -> torch.Tensor:
    if x.is_cuda and torch.cuda.is_current_stream_capturing():
        raise AssertionError("a recorded pass would draw the same mask at every replay")
    # No two members' seeds are the same unless their groups' are.
    generator = torch.Generator(device=x.device).manual_seed(masks.seed * MOST_MEMBERS + member)
    mask = torch.empty_like(x).bernoulli_(1.0 - masks.drop, generator=generator)
    return mask.mul_(x).mul_(1.0 / (1.0 - masks.drop))


def _loaded() -> Any:
    from jobs.train import dropout_kernels

    return dropout_kernels


def fills_a_tile(rank: int) -> bool:
    """Whether the kernels have products of this rank."""
    return rank in (16, 32, 64)


def _kernels(x: torch.Tensor, rank: int) -> Any:
    """The Triton module where it can be used: a GPU with bfloat16 products, and a rank that fills a tile."""
    if not x.is_cuda or x.dtype not in (torch.bfloat16, torch.float16) or not fills_a_tile(rank):
        return None
    # The kernels count entries in 32 bits.
    if x.numel() >= 2**31 or kernel_failure() is not None:
        return None
    return _loaded()


@functools.cache
def kernel_failure() -> str | None:
    """Why the Triton kernels cannot be used on this machine, found out by using them; None when they can."""
    try:
        kernels = _loaded()
        x, a = _ones(48, 64), _ones(32, 64)
        seed = torch.tensor([7], dtype=torch.int32, device="cuda")
        inner, kept = kernels.project(x, a, 2, 0.5, seed, 1.0)
        # Each entry becomes 16/16 where it is kept, over 1 - p.
        below = _ones(48, 32) / 16
        below[:, 16:] = 0
        first = kernels.spread(below, a, kept, 0.5, 1.0).float()
        both = kernels.spread(_ones(48, 32) / 16, a, kept, 0.5, 1.0).float()
        outer = kernels.outer(_ones(48, 32), x, kept, 0.5, 1.0)
        agree = all(
            torch.allclose(one.float(), other, rtol=0.02)
            for one, other in (
                (inner[:, 0], first.sum(1)),
                (inner[:, 16], (both - first).sum(1)),
                (outer[0], first.sum(0)),
                (outer[16], (both - first).sum(0)),
            )
        )
    except Exception as error:  # noqa: BLE001 whatever a compiler throws means that the slower way is taken, by name
        return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
    return None if agree else "the kernels' masks differ from one another"


def _ones(*shape: int) -> torch.Tensor:
    return torch.ones(shape, dtype=torch.bfloat16, device="cuda")
