"""LoRA's forward and backward written out, for projections that read the same input at once: the same mathematics.

PEFT computes  y = W x + s B A drop(x)  from separate operations for each projection: it copies the frozen product,
keeps the dropped input and its mask for the backward pass, and scales and adds in passes of their own; the gradients
for x of projections side by side are added up in further passes. Here q, k and v are one operation, gate and up are
one: x is read once for all adapters, sums happen inside the matrix products, and of dropout only mask bits are kept.
Each projection draws its own mask, as in PEFT; the random numbers are other ones. The parameters stay PEFT's.

Legend: T tokens, K inputs, N outputs, G projections of a group, r rank.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from jobs.train import dropped_products
from jobs.train.dropped_products import Masks


@dataclass(eq=False)
class Group:
    """G projections with plain LoRA adapters of the same rank and scale."""

    modules: list[Any]
    drop: float
    scaling: float
    low_a: torch.Tensor | None = None
    """[G r, K], the A matrices in the type that is computed with, one below the other."""
    low_b: list[torch.Tensor] = field(default_factory=list)
    """G times [N, r]."""
    weights: list[torch.Tensor] = field(default_factory=list)
    """G times [N, K], frozen and dequantised, where there is memory to keep them."""
    waiting: dict[int, torch.Tensor] = field(default_factory=dict)
    """Outputs that were computed with a sibling's and have not been asked for yet."""
    read: torch.Tensor | None = None
    """The input that `waiting` belongs to."""
    seed: int = 0
    """Of this pass's dropout."""
    seed_at: torch.Tensor | None = None
    """The same on the GPU, int32 [1]."""

    def __post_init__(self) -> None:
        """Look the parameters up: A and B of one member after the other."""
        pairs = [(m.lora_A["default"].weight, m.lora_B["default"].weight) for m in self.modules]
        self.parameters: list[torch.Tensor] = [parameter for pair in pairs for parameter in pair]
        self.leaves = self.parameters
        """What gradients are asked for: the parameters, or other tensors over the same memory."""

    @property
    def rank(self) -> int:
        """Of each member's adapter."""
        return int(self.parameters[0].shape[0])

    def weight(self, member: int, dtype: torch.dtype) -> torch.Tensor:
        """One member's frozen weight [N, K]."""
        return self.weights[member] if self.weights else frozen_weight(self.modules[member].base_layer, dtype)

    def keep_weights(self, dtype: torch.dtype) -> None:
        """Dequantise the frozen weights for good."""
        self.weights = [frozen_weight(module.base_layer, dtype) for module in self.modules]

    def forget(self) -> None:
        """Let go of outputs nobody asked for."""
        self.waiting, self.read = {}, None

    def make_copies(self, dtype: torch.dtype) -> list[torch.Tensor]:
        """Room for a copy of each parameter in `dtype`, where the forward pass looks for it."""
        rank, width = self.parameters[0].shape
        self.low_a = self.parameters[0].new_empty((rank * len(self.modules), width), dtype=dtype)
        self.low_b = [torch.empty_like(b, dtype=dtype, requires_grad=False) for b in self.parameters[1::2]]
        return [copy for pair in zip(self.low_a.split(rank), self.low_b, strict=True) for copy in pair]

    def forward(self, member: int, x: torch.Tensor) -> torch.Tensor:
        """One member's projection of x; the siblings' are computed with it and wait for their turn."""
        if self.read is not x or member not in self.waiting:
            self.waiting, self.read = dict(enumerate(self._compute(x))), x
        y = self.waiting.pop(member)
        if not self.waiting:
            self.read = None
        return y

    def _compute(self, x: torch.Tensor) -> list[torch.Tensor]:
        flat = x.reshape(-1, x.shape[-1]).to(compute_dtype(x))
        with torch.autocast(x.device.type, enabled=False):
            outputs = GroupedProjection.apply(flat, self, *self.leaves)
        return [y.view(*x.shape[:-1], y.shape[-1]) for y in outputs]


class GroupedProjection(torch.autograd.Function):  # type: ignore[misc]  # the library is untyped here
    """G frozen projections with their adapters: x [T, K] -> G times [T, N]."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, group: Group, *_: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The projections; A and B are computed with in x's type, from the group's copies."""
        masks = Masks(len(group.modules), group.drop, group.seed, seed_at=group.seed_at)
        inner, masks = dropped_products.project(x, group.low_a, masks, group.scaling)
        outputs = []
        for member, (b, part) in enumerate(zip(group.low_b, inner.chunk(masks.members, dim=1), strict=True)):
            bias = group.modules[member].base_layer.bias
            # The small product first: it only writes, and the large one adds to it.
            y = part @ b.t() if bias is None else torch.addmm(bias.to(x.dtype), part, b.t())
            outputs.append(y.addmm_(x, group.weight(member, x.dtype).t()))
        ctx.save_for_backward(x, inner, masks.kept, group.low_a, *group.low_b)
        ctx.group, ctx.seed = group, group.seed
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *slopes: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients for x and every A and B."""
        x, inner, kept, a, *bs = ctx.saved_tensors
        group = ctx.group
        masks = Masks(len(group.modules), group.drop, ctx.seed, kept)
        slopes = tuple(slope.contiguous() for slope in slopes)
        below, slopes_b = torch.empty_like(inner), []
        belows = below.chunk(masks.members, dim=1)
        for slope, b, part, out in zip(slopes, bs, inner.chunk(masks.members, dim=1), belows, strict=True):
            torch.mm(slope, b, out=out)
            slopes_b.append((slope.t() @ part).float())
        slopes_a = dropped_products.outer(below, x, masks, group.scaling).float().chunk(masks.members)
        slope_x = None
        if ctx.needs_input_grad[0]:
            slope_x = dropped_products.spread(below, a, masks, group.scaling)
            for member, slope in enumerate(slopes):
                slope_x.addmm_(slope, group.weight(member, x.dtype))
        return slope_x, None, *(one for pair in zip(slopes_a, slopes_b, strict=True) for one in pair)


def frozen_weight(base: Any, dtype: torch.dtype) -> torch.Tensor:
    """The frozen weight [N, K], dequantised if it is stored in 4 bits."""
    state = getattr(base.weight, "quant_state", None)
    if state is None:
        plain: torch.Tensor = base.weight.detach().to(dtype)
        return plain
    from bitsandbytes.functional import dequantize_4bit

    weight: torch.Tensor = dequantize_4bit(base.weight.data, state).to(dtype)
    return weight


def compute_dtype(x: torch.Tensor) -> torch.dtype:
    """The type that products with x are computed in here: autocast's, or x's own."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
