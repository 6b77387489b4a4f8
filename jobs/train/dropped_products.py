"""Three products with a dropped-out matrix, whose mask is drawn anew each time from a seed instead of being kept.

On CUDA with Triton the mask never leaves the registers; elsewhere it is a matrix that lives as long as one product.

Legend: T tokens, K inputs, r rank; drop(x) is x with entries zeroed with probability p and the rest over 1 - p.
"""

from __future__ import annotations

import functools
from typing import Any

import torch


def project(x: torch.Tensor, a: torch.Tensor, drop: float, seed: int) -> torch.Tensor:
    """drop(x) A^T: x [T, K], A [r, K] -> [T, r]."""
    kernels = _kernels(x, a.shape[0]) if drop else None
    if kernels is not None:
        fast: torch.Tensor = kernels.project(x, a, drop, seed)
        return fast
    return _drop(x, drop, seed) @ a.t()


def outer(below: torch.Tensor, x: torch.Tensor, drop: float, seed: int) -> torch.Tensor:
    """A's gradient, below^T drop(x): below [T, r], x [T, K] -> [r, K]."""
    kernels = _kernels(x, below.shape[1]) if drop else None
    if kernels is not None:
        fast: torch.Tensor = kernels.outer(below, x, drop, seed)
        return fast
    return below.t() @ _drop(x, drop, seed)


def add_back(slope: torch.Tensor, below: torch.Tensor, a: torch.Tensor, drop: float, seed: int) -> None:
    """Slope += drop(below A), in place: slope [T, K], below [T, r], A [r, K]."""
    if not drop:
        slope.addmm_(below, a)
        return
    kernels = _kernels(slope, a.shape[0])
    if kernels is not None:
        kernels.add_back(slope, below, a, drop, seed)
    else:
        slope.add_(_drop(below @ a, drop, seed))


def _drop(x: torch.Tensor, drop: float, seed: int) -> torch.Tensor:
    if not drop:
        return x
    generator = torch.Generator(device=x.device).manual_seed(seed)
    mask = torch.empty_like(x).bernoulli_(1.0 - drop, generator=generator)
    return mask.mul_(x).mul_(1.0 / (1.0 - drop))


def _kernels(x: torch.Tensor, rank: int) -> Any:
    """The Triton module where it can be used: a GPU with bfloat16 products, and a rank that fills a tile."""
    if not x.is_cuda or x.dtype not in (torch.bfloat16, torch.float16) or rank not in (16, 32, 64):
        return None
    if kernel_failure() is not None:
        return None
    from jobs.train import dropout_kernels

    return dropout_kernels


@functools.cache
def kernel_failure() -> str | None:
    """Why the Triton kernels cannot be used on this machine, found out by using them; None when they can."""
    try:
        from jobs.train import dropout_kernels as kernels

        x = torch.ones((48, 64), dtype=torch.bfloat16, device="cuda")
        a = torch.ones((16, 64), dtype=torch.bfloat16, device="cuda")
        mask = torch.zeros_like(x)
        # Each entry becomes 16/16 where it is kept, over 1 - p.
        kernels.add_back(mask, torch.full((48, 16), 1 / 16, dtype=x.dtype, device="cuda"), a, 0.5, 7)
        products = (
            (kernels.project(x, a, 0.5, 7)[:, 0], mask.float().sum(1)),
            (
                kernels.outer(torch.ones((48, 16), dtype=x.dtype, device="cuda"), x, 0.5, 7)[0],
                mask.float().sum(0),
            ),
        )
        agree = all(torch.allclose(one.float(), other, rtol=0.02) for one, other in products)
    except Exception as error:  # noqa: BLE001 whatever a compiler throws means that the slower way is taken, by name
        return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
    return None if agree else "the kernels' masks differ from one another"
