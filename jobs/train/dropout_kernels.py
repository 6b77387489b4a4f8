"""Triton kernels of `dropped_products`: each member's dropout mask is drawn once, in registers, and kept as bits.

One Philox call gives eight 16-bit numbers, for eight neighbouring columns; an entry is dropped where its number is
below p * 65,536 (p to within 1.5e-5, and the scale is that of the p that is really used, so the mean is exact). The
backward pass reads the bits, an eighth of a byte an entry, since drawing them again costs more than that.

Legend: T tokens, K inputs, G members (up to three projections that read the same x), r rank.
"""
# Upper-case parameters are compile-time constants, Triton's custom; its functions take pointers, which have no type.
# ruff: noqa: N803
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl


@triton.jit
def _draw(rows, eighths, width8, seed, limit, MEMBER: tl.constexpr):
    """Eight mask bits each of [rows, eighths], 1 = kept."""
    offsets = rows[:, None] * width8 + eighths[None, :]
    zero = offsets * 0
    r0, r1, r2, r3 = tl.philox(seed, offsets, zero + MEMBER, zero, zero, 7)
    packed = ((r0 & 0xFFFF).to(tl.int32) >= limit).to(tl.int32)
    packed |= ((r0 >> 16).to(tl.int32) >= limit).to(tl.int32) << 1
    packed |= ((r1 & 0xFFFF).to(tl.int32) >= limit).to(tl.int32) << 2
    packed |= ((r1 >> 16).to(tl.int32) >= limit).to(tl.int32) << 3
    packed |= ((r2 & 0xFFFF).to(tl.int32) >= limit).to(tl.int32) << 4
    packed |= ((r2 >> 16).to(tl.int32) >= limit).to(tl.int32) << 5
    packed |= ((r3 & 0xFFFF).to(tl.int32) >= limit).to(tl.int32) << 6
    packed |= ((r3 >> 16).to(tl.int32) >= limit).to(tl.int32) << 7
    return packed


@triton.jit
def _unpack(packed, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The bits as a mask [ROWS, COLUMNS]."""
    bits = (packed[:, :, None] >> tl.arange(0, 8)[None, None, :]) & 1
    return tl.reshape(bits, (ROWS, COLUMNS)) != 0


@triton.jit
def _project_member(
    x, total, a_ptr, kept_ptr, rows, columns, eighths, tokens, width, seed, limit,
    MEMBER: tl.constexpr, R: tl.constexpr, M: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    width8 = tl.cdiv(width, 8)
    packed = _draw(rows, eighths, width8, seed, limit, MEMBER)
    inside = (rows < tokens)[:, None] & (eighths < width8)[None, :]
    place = kept_ptr + MEMBER * tokens * width8 + rows[:, None] * width8 + eighths[None, :]
    tl.store(place, packed.to(tl.uint8), mask=inside)
    ranks = MEMBER * R + tl.arange(0, R)
    a = tl.load(a_ptr + ranks[None, :] * width + columns[:, None], mask=(columns < width)[:, None], other=0.0)
    return tl.dot(tl.where(_unpack(packed, M, C), x, 0.0).to(x.dtype), a, total)


@triton.jit
def _store_inner(out_ptr, total, rows, tokens, scale, MEMBER: tl.constexpr, R: tl.constexpr, G: tl.constexpr):
    ranks = MEMBER * R + tl.arange(0, R)
    place = out_ptr + rows[:, None] * (G * R) + ranks[None, :]
    tl.store(place, (total * scale).to(out_ptr.dtype.element_ty), mask=(rows < tokens)[:, None])


@triton.jit(do_not_specialize=["tokens", "limit"])
def _project(
    x_ptr, a_ptr, out_ptr, kept_ptr, seed_ptr, tokens, width, limit, scale,
    G: tl.constexpr, R: tl.constexpr, M: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    seed = tl.load(seed_ptr)
    rows = tl.program_id(0) * M + tl.arange(0, M)
    total0 = tl.zeros((M, R), dtype=tl.float32)
    total1 = tl.zeros((M, R), dtype=tl.float32)
    total2 = tl.zeros((M, R), dtype=tl.float32)
    for start in range(0, width, C):
        columns = start + tl.arange(0, C)
        eighths = start // 8 + tl.arange(0, C // 8)
        inside = (rows < tokens)[:, None] & (columns < width)[None, :]
        x = tl.load(x_ptr + rows[:, None] * width + columns[None, :], mask=inside, other=0.0)
        total0 = _project_member(
            x, total0, a_ptr, kept_ptr, rows, columns, eighths, tokens, width, seed, limit, 0, R, M, C
        )
        if G > 1:
            total1 = _project_member(
                x, total1, a_ptr, kept_ptr, rows, columns, eighths, tokens, width, seed, limit, 1, R, M, C
            )
        if G > 2:
            total2 = _project_member(
                x, total2, a_ptr, kept_ptr, rows, columns, eighths, tokens, width, seed, limit, 2, R, M, C
            )
    _store_inner(out_ptr, total0, rows, tokens, scale, 0, R, G)
    if G > 1:
        _store_inner(out_ptr, total1, rows, tokens, scale, 1, R, G)
    if G > 2:
        _store_inner(out_ptr, total2, rows, tokens, scale, 2, R, G)


@triton.jit
def _outer_member(
    x, total, below_ptr, kept_ptr, rows, eighths, tokens, width8,
    MEMBER: tl.constexpr, G: tl.constexpr, R: tl.constexpr, M: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    ranks = MEMBER * R + tl.arange(0, R)
    inside = (rows < tokens)[:, None] & (eighths < width8)[None, :]
    place = kept_ptr + MEMBER * tokens * width8 + rows[:, None] * width8 + eighths[None, :]
    keep = _unpack(tl.load(place, mask=inside, other=0).to(tl.int32), M, C)
    below = tl.load(below_ptr + rows[None, :] * (G * R) + ranks[:, None], mask=(rows < tokens)[None, :], other=0.0)
    return tl.dot(below, tl.where(keep, x, 0.0).to(x.dtype), total)


@triton.jit
def _store_outer(out_ptr, total, columns, width, scale, MEMBER: tl.constexpr, R: tl.constexpr):
    ranks = MEMBER * R + tl.arange(0, R)
    tl.store(out_ptr + ranks[:, None] * width + columns[None, :], total * scale, mask=(columns < width)[None, :])


@triton.jit(do_not_specialize=["tokens", "share"])
def _outer(
    below_ptr, x_ptr, kept_ptr, out_ptr, tokens, share, width, scale,
    G: tl.constexpr, R: tl.constexpr, M: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    columns = tl.program_id(0) * C + tl.arange(0, C)
    eighths = tl.program_id(0) * (C // 8) + tl.arange(0, C // 8)
    width8 = tl.cdiv(width, 8)
    total0 = tl.zeros((R, C), dtype=tl.float32)
    total1 = tl.zeros((R, C), dtype=tl.float32)
    total2 = tl.zeros((R, C), dtype=tl.float32)
    first = tl.program_id(1) * share
    for start in range(first, tl.minimum(first + share, tokens), M):
        rows = start + tl.arange(0, M)
        inside = (rows < tokens)[:, None] & (columns < width)[None, :]
        x = tl.load(x_ptr + rows[:, None] * width + columns[None, :], mask=inside, other=0.0)
        total0 = _outer_member(x, total0, below_ptr, kept_ptr, rows, eighths, tokens, width8, 0, G, R, M, C)
        if G > 1:
            total1 = _outer_member(x, total1, below_ptr, kept_ptr, rows, eighths, tokens, width8, 1, G, R, M, C)
        if G > 2:
            total2 = _outer_member(x, total2, below_ptr, kept_ptr, rows, eighths, tokens, width8, 2, G, R, M, C)
    out_ptr += tl.program_id(1) * (G * R) * width
    _store_outer(out_ptr, total0, columns, width, scale, 0, R)
    if G > 1:
        _store_outer(out_ptr, total1, columns, width, scale, 1, R)
    if G > 2:
        _store_outer(out_ptr, total2, columns, width, scale, 2, R)


@triton.jit(do_not_specialize=["tokens"])
def _spread(
    out_ptr, below_ptr, a_ptr, kept_ptr, tokens, width, scale,
    G: tl.constexpr, R: tl.constexpr, M: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * M + tl.arange(0, M)
    columns = tl.program_id(1) * C + tl.arange(0, C)
    eighths = tl.program_id(1) * (C // 8) + tl.arange(0, C // 8)
    width8 = tl.cdiv(width, 8)
    packed_inside = (rows < tokens)[:, None] & (eighths < width8)[None, :]
    total = tl.zeros((M, C), dtype=tl.float32)
    for member in tl.static_range(G):
        ranks = member * R + tl.arange(0, R)
        below = tl.load(below_ptr + rows[:, None] * (G * R) + ranks[None, :], mask=(rows < tokens)[:, None], other=0.0)
        a = tl.load(a_ptr + ranks[:, None] * width + columns[None, :], mask=(columns < width)[None, :], other=0.0)
        place = kept_ptr + member * tokens * width8 + rows[:, None] * width8 + eighths[None, :]
        keep = _unpack(tl.load(place, mask=packed_inside, other=0).to(tl.int32), M, C)
        total += tl.where(keep, tl.dot(below, a), 0.0)
    inside = (rows < tokens)[:, None] & (columns < width)[None, :]
    place = out_ptr + rows[:, None] * width + columns[None, :]
    tl.store(place, (total * scale).to(out_ptr.dtype.element_ty), mask=inside)


def project(
    x: torch.Tensor, a: torch.Tensor, members: int, drop: float, seed: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale * drop_g(x) A_g^T for each member g: x [T, K], a [G r, K] -> [T, G r], and the masks' bits.

    The seed, int32 [1], is read on the device: a replay of a recorded pass finds another one there.
    """
    tokens, width = x.shape
    rank = a.shape[0] // members
    out = torch.empty((tokens, a.shape[0]), dtype=x.dtype, device=x.device)
    kept = torch.empty((members, tokens, triton.cdiv(width, 8)), dtype=torch.uint8, device=x.device)
    limit, undo = _limit(drop)
    _project[(triton.cdiv(tokens, 32),)](
        x, a, out, kept, seed, tokens, width, limit, scale * undo, G=members, R=rank, M=32, C=128, num_warps=4
    )
    return out, kept


def outer(below: torch.Tensor, x: torch.Tensor, kept: torch.Tensor, drop: float, scale: float) -> torch.Tensor:
    """Scale * below_g^T drop_g(x): below [T, G r], x [T, K] -> [G r, K], float32."""
    (tokens, width), members = x.shape, kept.shape[0]
    tiles = triton.cdiv(width, 128)
    # Some 1,000 programs fill a card whatever the shape; a share is a whole number of row tiles.
    share = max(128, triton.cdiv(triton.cdiv(tokens * tiles, 1024), 64) * 64)
    shares = triton.cdiv(tokens, share)
    parts = torch.empty((shares, below.shape[1], width), dtype=torch.float32, device=x.device)
    _outer[(tiles, shares)](
        below, x, kept, parts, tokens, share, width, scale * _limit(drop)[1],
        G=members, R=below.shape[1] // members, M=64, C=128, num_warps=4,
    )  # fmt: skip
    return parts[0] if shares == 1 else parts.sum(dim=0)


def spread(below: torch.Tensor, a: torch.Tensor, kept: torch.Tensor, drop: float, scale: float) -> torch.Tensor:
    """Scale * the sum over g of drop_g(below_g A_g): below [T, G r], a [G r, K] -> [T, K]."""
    tokens, width, members = below.shape[0], a.shape[1], kept.shape[0]
    out = torch.empty((tokens, width), dtype=below.dtype, device=below.device)
    grid = (triton.cdiv(tokens, 32), triton.cdiv(width, 128))
    _spread[grid](
        out, below, a, kept, tokens, width, scale * _limit(drop)[1],
        G=members, R=a.shape[0] // members, M=32, C=128, num_warps=4,
    )  # fmt: skip
    return out


def _limit(drop: float) -> tuple[int, float]:
    limit = round(drop * 65536)
    return limit, 65536 / (65536 - limit)
