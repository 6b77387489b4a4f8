"""Triton kernels of `dropped_products`: dropout's mask is drawn in registers, tile by tile, the same in all three.

One Philox call gives eight 16-bit numbers, for eight neighbouring columns; an entry is dropped where its number is
below p * 65,536 (p to within 1.5e-5, and the scale is that of the p that is really used, so the mean is exact).
"""
# Upper-case parameters are compile-time constants, Triton's custom; its functions take pointers, which have no type.
# ruff: noqa: N803
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl


@triton.jit
def _keep(rows, eighths, width8, seed, limit, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Mask of a tile [ROWS, COLUMNS], True = kept."""
    offsets = rows[:, None] * width8 + eighths[None, :]
    r0, r1, r2, r3 = tl.randint4x(seed, offsets, 7)
    words = tl.join(tl.join(r0, r1), tl.join(r2, r3)).to(tl.int32)
    halves = tl.join(words & 0xFFFF, (words >> 16) & 0xFFFF)
    return tl.reshape(halves, (ROWS, COLUMNS)) >= limit


@triton.jit(do_not_specialize=["tokens", "seed", "limit"])
def _project(
    x_ptr, a_ptr, out_ptr, tokens, width, seed, limit, scale, R: tl.constexpr, M: tl.constexpr, C: tl.constexpr
):
    rows = tl.program_id(0) * M + tl.arange(0, M)
    ranks = tl.arange(0, R)
    total = tl.zeros((M, R), dtype=tl.float32)
    width8 = tl.cdiv(width, 8)
    for start in range(0, width, C):
        columns = start + tl.arange(0, C)
        inside = (rows < tokens)[:, None] & (columns < width)[None, :]
        x = tl.load(x_ptr + rows[:, None] * width + columns[None, :], mask=inside, other=0.0)
        keep = _keep(rows, start // 8 + tl.arange(0, C // 8), width8, seed, limit, M, C)
        a = tl.load(a_ptr + ranks[None, :] * width + columns[:, None], mask=(columns < width)[:, None], other=0.0)
        total = tl.dot(tl.where(keep, x, 0.0).to(x.dtype), a, total)
    tl.store(
        out_ptr + rows[:, None] * R + ranks[None, :],
        (total * scale).to(out_ptr.dtype.element_ty),
        mask=(rows < tokens)[:, None],
    )


@triton.jit(do_not_specialize=["tokens", "seed", "limit", "share"])
def _outer(
    below_ptr, x_ptr, out_ptr, tokens, share, width, seed, limit, R: tl.constexpr, M: tl.constexpr, C: tl.constexpr
):
    columns = tl.program_id(0) * C + tl.arange(0, C)
    eighths = tl.program_id(0) * (C // 8) + tl.arange(0, C // 8)
    ranks = tl.arange(0, R)
    total = tl.zeros((R, C), dtype=tl.float32)
    width8 = tl.cdiv(width, 8)
    first = tl.program_id(1) * share
    for start in range(first, tl.minimum(first + share, tokens), M):
        rows = start + tl.arange(0, M)
        inside = (rows < tokens)[:, None] & (columns < width)[None, :]
        x = tl.load(x_ptr + rows[:, None] * width + columns[None, :], mask=inside, other=0.0)
        keep = _keep(rows, eighths, width8, seed, limit, M, C)
        below = tl.load(below_ptr + rows[None, :] * R + ranks[:, None], mask=(rows < tokens)[None, :], other=0.0)
        total = tl.dot(below, tl.where(keep, x, 0.0).to(x.dtype), total)
    out = out_ptr + tl.program_id(1) * R * width + ranks[:, None] * width + columns[None, :]
    tl.store(out, total, mask=(columns < width)[None, :])


@triton.jit(do_not_specialize=["tokens", "seed", "limit"])
def _add_back(
    slope_ptr, below_ptr, a_ptr, tokens, width, seed, limit, scale, R: tl.constexpr, M: tl.constexpr, C: tl.constexpr
):
    rows = tl.program_id(0) * M + tl.arange(0, M)
    columns = tl.program_id(1) * C + tl.arange(0, C)
    eighths = tl.program_id(1) * (C // 8) + tl.arange(0, C // 8)
    ranks = tl.arange(0, R)
    inside = (rows < tokens)[:, None] & (columns < width)[None, :]
    below = tl.load(below_ptr + rows[:, None] * R + ranks[None, :], mask=(rows < tokens)[:, None], other=0.0)
    a = tl.load(a_ptr + ranks[:, None] * width + columns[None, :], mask=(columns < width)[None, :], other=0.0)
    keep = _keep(rows, eighths, tl.cdiv(width, 8), seed, limit, M, C)
    place = slope_ptr + rows[:, None] * width + columns[None, :]
    slope = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    slope += tl.where(keep, tl.dot(below, a) * scale, 0.0)
    tl.store(place, slope.to(slope_ptr.dtype.element_ty), mask=inside)


def project(x: torch.Tensor, a: torch.Tensor, drop: float, seed: int) -> torch.Tensor:
    """drop(x) A^T: x [T, K], A [r, K] -> [T, r]."""
    tokens, width = x.shape
    x, a = x.contiguous(), a.contiguous()
    out = torch.empty((tokens, a.shape[0]), dtype=x.dtype, device=x.device)
    limit, scale = _limit(drop)
    _project[(triton.cdiv(tokens, 32),)](
        x, a, out, tokens, width, seed, limit, scale, R=a.shape[0], M=32, C=256, num_warps=4
    )
    return out


def outer(below: torch.Tensor, x: torch.Tensor, drop: float, seed: int) -> torch.Tensor:
    """below^T drop(x): below [T, r], x [T, K] -> [r, K], float32."""
    tokens, width = x.shape
    rank = below.shape[1]
    below, x = below.contiguous(), x.contiguous()
    limit, scale = _limit(drop)
    tiles = triton.cdiv(width, 128)
    # Some 1,000 programs fill a card whatever the shape; a share is a whole number of row tiles.
    share = max(128, triton.cdiv(triton.cdiv(tokens * tiles, 1024), 32) * 32)
    shares = triton.cdiv(tokens, share)
    parts = torch.empty((shares, rank, width), dtype=torch.float32, device=x.device)
    _outer[(tiles, shares)](below, x, parts, tokens, share, width, seed, limit, R=rank, M=32, C=128, num_warps=4)
    return parts.sum(dim=0) * scale


def add_back(slope: torch.Tensor, below: torch.Tensor, a: torch.Tensor, drop: float, seed: int) -> None:
    """Slope += drop(below A), in place: slope [T, K], below [T, r], A [r, K]."""
    tokens, width = slope.shape
    below, a = below.contiguous(), a.contiguous()
    limit, scale = _limit(drop)
    grid = (triton.cdiv(tokens, 64), triton.cdiv(width, 128))
    _add_back[grid](slope, below, a, tokens, width, seed, limit, scale, R=a.shape[0], M=64, C=128, num_warps=4)


def _limit(drop: float) -> tuple[int, float]:
    limit = round(drop * 65536)
    return limit, 65536 / (65536 - limit)
