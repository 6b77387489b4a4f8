"""LoRA's forward and backward of one projection, written out: the same mathematics with less memory traffic.

PEFT computes  y = W x + s B A drop(x)  from separate operations: it copies the frozen product, keeps the dropped input
and its mask for the backward pass, and scales and adds in passes of their own. Here the product is added in place, and
nothing of dropout is kept: its mask is drawn again from the same seed where it is needed. Each projection draws its own
mask, as in PEFT; the random numbers are other ones.

Legend: T tokens, K inputs, N outputs, r rank.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from torch.nn import functional

from jobs.train import dropped_products


class FusedProjection(torch.autograd.Function):  # type: ignore[misc]  # the library is untyped here
    """One frozen projection with its adapter: x [T, K], A [r, K], B [N, r] -> [T, N]."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, base: Any, scaling: float, drop: float, seed: int
    ) -> torch.Tensor:
        """The projection; A and B are computed with in x's type."""
        low_a, low_b = a.to(x.dtype), b.to(x.dtype)
        y = functional.linear(x, frozen_weight(base, x.dtype), base.bias)
        inner = dropped_products.project(x, low_a, drop, seed)
        y.addmm_(inner, low_b.t(), alpha=scaling)
        ctx.save_for_backward(x, inner, low_a, low_b)
        ctx.base, ctx.scaling, ctx.drop, ctx.seed = base, scaling, drop, seed
        return y

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients for x, A and B."""
        x, inner, a, b = ctx.saved_tensors
        slope = slope.contiguous()
        below = (slope @ b) * ctx.scaling
        slope_b = (slope.t() @ inner) * ctx.scaling
        slope_a = dropped_products.outer(below, x, ctx.drop, ctx.seed)
        slope_x = None
        if ctx.needs_input_grad[0]:
            slope_x = slope @ frozen_weight(ctx.base, x.dtype)
            dropped_products.add_back(slope_x, below, a, ctx.drop, ctx.seed)
        return slope_x, slope_a.float(), slope_b.float(), None, None, None, None


def frozen_weight(base: Any, dtype: torch.dtype) -> torch.Tensor:
    """The frozen weight [N, K], dequantised if it is stored in 4 bits."""
    state = getattr(base.weight, "quant_state", None)
    if state is None:
        plain: torch.Tensor = base.weight.detach().to(dtype)
        return plain
    from bitsandbytes.functional import dequantize_4bit

    weight: torch.Tensor = dequantize_4bit(base.weight.data, state).to(dtype)
    return weight


def fuse_adapters(model: Any) -> int:
    """Replace the forward of every LoRA projection of a PeftModel, for training; evaluation keeps PEFT's.

    Args:
        model: a PeftModel with one plain LoRA adapter of float32 matrices.

    Returns:
        How many projections were replaced; the others (biased or variant adapters) stay PEFT's.
    """
    from peft.tuners.lora import LoraLayer

    fused = 0
    for module in model.modules():
        if not isinstance(module, LoraLayer) or list(module.lora_A) != ["default"]:
            continue
        plain = isinstance(module.lora_A["default"], torch.nn.Linear) and not module.lora_variant
        if plain and module.lora_B["default"].bias is None and hasattr(module.base_layer, "bias"):
            module.forward = types.MethodType(_forward, module)
            fused += 1
    return fused


def _forward(module: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    if not module.training or module.disable_adapters or module.merged or args or kwargs:
        plain: torch.Tensor = type(module).forward(module, x, *args, **kwargs)
        return plain
    drop = getattr(module.lora_dropout["default"], "p", 0.0)
    # On the host, where activation checkpointing restores it: the second forward pass draws the same mask.
    seed = int(torch.randint(2**31 - 1, ())) if drop else 0
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    flat = x.reshape(-1, x.shape[-1]).to(dtype)
    a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
    with torch.autocast(device, enabled=False):
        y = FusedProjection.apply(flat, a, b, module.base_layer, module.scaling["default"], drop, seed)
    fused: torch.Tensor = y.view(*x.shape[:-1], y.shape[-1])
    return fused
