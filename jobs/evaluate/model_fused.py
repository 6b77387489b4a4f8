"""A trunk whose small operations are fused while it is only read: norms, gates, rotations and low-rank updates.

Matrix products are what a GPU is bought for; between them, the layers of transformers and PEFT read and write every
state some forty times. What is replaced here computes the same formula with fewer roundings to bfloat16, so states
agree with the plain layers' within bfloat16's rounding (2^-8 of a value per operation). Everything is put back at the
end, and nothing is replaced whose formula is not known.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Final

import torch
from torch.nn import functional

_NORMS: Final = frozenset({"LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm"})
_MLPS: Final = frozenset({"LlamaMLP", "MistralMLP", "Qwen2MLP", "Qwen3MLP"})
_ATTENTIONS: Final = frozenset({"LlamaAttention", "MistralAttention", "Qwen2Attention", "Qwen3Attention"})
_SILU: Final = frozenset({"silu", "swish"})
_ROTATION: Final = "apply_rotary_pos_emb"


@contextmanager
def fused_layers(trunk: Any) -> Iterator[dict[str, int]]:
    """Replace the forwards of a trunk's known layers while inside; for inference only.

    Args:
        trunk: a transformers trunk, with or without LoRA layers of PEFT.

    Yields:
        Kind -> how many were replaced.
    """
    kernels = liger_kernels() if next(trunk.parameters()).is_cuda else None
    forwards = [found for module in trunk.modules() if (found := _faster(module, trunk.config, kernels))]
    rotations = _rotations(trunk) if kernels else []
    replaced: dict[str, int] = {"rotation": len(rotations)}
    originals = [getattr(room, _ROTATION) for room in rotations]
    try:
        for kind, module, forward in forwards:
            module.forward = forward
            replaced[kind] = replaced.get(kind, 0) + 1
        for room in rotations:
            setattr(room, _ROTATION, kernels["rotate"] if kernels else None)
        yield replaced
    finally:
        for _, module, _ in forwards:
            vars(module).pop("forward", None)
        for room, original in zip(rotations, originals, strict=True):
            setattr(room, _ROTATION, original)


def liger_kernels() -> dict[str, Callable[..., Any]] | None:
    """Liger's forward kernels; None where the package is not installed."""
    try:
        from liger_kernel.ops.rms_norm import LigerRMSNormFunction
        from liger_kernel.ops.rope import LigerRopeFunction
        from liger_kernel.ops.swiglu import LigerSiLUMulFunction
    except ImportError:
        return None

    def rotate(q: Any, k: Any, cos: Any, sin: Any, unsqueeze_dim: int = 1) -> Any:
        return LigerRopeFunction.apply(q, k, cos, sin, None, unsqueeze_dim)

    def normalise(hidden: Any, weight: Any, eps: float) -> Any:
        return LigerRMSNormFunction.apply(hidden, weight, eps, 0.0, "llama", False)

    return {"rotate": rotate, "normalise": normalise, "gate": LigerSiLUMulFunction.apply}


def _faster(
    module: Any, config: Any, kernels: dict[str, Callable[..., Any]] | None
) -> tuple[str, Any, Callable[..., Any]] | None:
    """Kind, module and replacement; None for what stays as it is."""
    name = type(module).__name__
    if "forward" in vars(module):  # somebody else has replaced it already
        return None
    if name in _NORMS:
        return "norm", module, _norm(module, kernels["normalise"] if kernels else _normalise)
    if name in _MLPS and getattr(config, "hidden_act", None) in _SILU:
        return "gate", module, _mlp(module, kernels["gate"] if kernels else _gate)
    if (update := _plain_update(module)) is not None:
        return "low-rank update", module, _low_rank(module, *update)
    return None


def _normalise(hidden: Any, weight: Any, eps: float) -> Any:
    # Outside autocast, which would turn the states into float32.
    with torch.autocast(hidden.device.type, enabled=False):
        return functional.rms_norm(hidden, (hidden.shape[-1],), weight, eps)


def _gate(gate: Any, up: Any) -> Any:
    return functional.silu(gate, inplace=True).mul_(up)


def _norm(module: Any, normalise: Callable[[Any, Any, float], Any]) -> Callable[[Any], Any]:
    def forward(hidden: Any) -> Any:
        return normalise(hidden, module.weight, module.variance_epsilon)

    return forward


def _mlp(module: Any, gate: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    def forward(hidden: Any) -> Any:
        return module.down_proj(gate(module.gate_proj(hidden), module.up_proj(hidden)))

    return forward


def _plain_update(module: Any) -> tuple[Any, Any, float] | None:
    """A [r, in], B [out, r] and scaling of a LoRA layer in its plain form; None for every other."""
    if not hasattr(module, "lora_A") or not hasattr(module, "base_layer"):
        return None
    names = [name for name in module.active_adapters if name in module.lora_A]
    if len(names) != 1 or module.merged or names[0] in module.lora_variant:
        return None
    down, up = module.lora_A[names[0]], module.lora_B[names[0]]
    if down.bias is not None or up.bias is not None:
        return None
    return down.weight, up.weight, float(module.scaling[names[0]])


def _low_rank(module: Any, down: Any, up: Any, scaling: float) -> Callable[[Any], Any]:
    """Base layer plus update, the sum written where the base layer's result is: PEFT reads and writes it four times."""
    cast: dict[torch.dtype, tuple[Any, Any]] = {}

    def forward(hidden: Any) -> Any:
        result = module.base_layer(hidden)
        if module.disable_adapters:
            return result
        if result.dtype not in cast:
            cast[result.dtype] = (down.to(result.dtype).t(), (up * scaling).to(result.dtype).t())
        first, second = cast[result.dtype]
        small = hidden.reshape(-1, hidden.shape[-1]) @ first
        flat = result.view(-1, result.shape[-1])
        return torch.addmm(flat, small, second, out=flat).view(result.shape)

    return forward


def _rotations(trunk: Any) -> list[ModuleType]:
    """The modules of transformers whose rotation the trunk's attention layers use."""
    names = {type(module).__module__ for module in trunk.modules() if type(module).__name__ in _ATTENTIONS}
    return [sys.modules[name] for name in sorted(names) if hasattr(sys.modules[name], _ROTATION)]
