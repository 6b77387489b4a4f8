"""LoRA's forward and backward written out, for projections that read the same input at once: the same mathematics.

PEFT computes  y = W x + s B A drop(x)  from separate operations for each projection: it copies the frozen product,
keeps the dropped input and its mask for the backward pass, and scales and adds in passes of their own; the gradients
for x of projections side by side are added up in further passes. Here q, k and v are one operation, gate and up are
one: x is read once for all adapters, sums happen inside the matrix products, and of dropout only mask bits are kept.
Each projection draws its own mask, as in PEFT; the random numbers are other ones. The parameters stay PEFT's.

Legend: T tokens, K inputs, N outputs, G projections of a group, r rank.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import torch

from jobs.train import dropped_products
from jobs.train.dropped_products import Masks

# Siblings that read the same input in every model that has them; where one does not, it is only slower.
TOGETHER: Final = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


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
        flat = x.reshape(-1, x.shape[-1]).to(_compute_dtype(x))
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


@dataclass(eq=False)
class FusedAdapters:
    """All groups of a model, and what they need before each pass."""

    groups: list[Group]
    _copies: dict[tuple[torch.dtype, torch.device], list[torch.Tensor]] = field(default_factory=dict)
    _seeds: torch.Tensor | None = None
    _seeds_stay: bool = False

    def prepare(self, inner: Any, *_: Any) -> None:
        """Copy the parameters into the type that is computed with, and draw the pass's seeds.

        Before each pass, as a hook: an optimizer changes parameters without telling anyone.
        """
        if not torch.is_grad_enabled() or not self.groups:
            return
        parameters = self.parameters
        dtype, device = _compute_dtype(next(inner.parameters())), parameters[0].device
        if (dtype, device) not in self._copies:
            self._copies.clear()
            self._copies[dtype, device] = [copy for group in self.groups for copy in group.make_copies(dtype)]
        with torch.no_grad():
            torch._foreach_copy_(self._copies[dtype, device], parameters)
        for group in self.groups:
            group.forget()
        if not self._seeds_stay:
            self.draw_seeds()

    def draw_seeds(self) -> None:
        """A new seed for each group, from the host's random numbers: those a checkpoint keeps.

        Recomputed activations find the seeds of their pass.
        """
        if not any(group.drop for group in self.groups):
            return
        seeds = torch.randint(2**31 - 1, (len(self.groups),))
        for group, seed in zip(self.groups, seeds.tolist(), strict=True):
            group.seed = seed
        device = self.groups[0].parameters[0].device
        if device.type != "cuda":
            return
        if self._seeds is None or self._seeds.device != device:
            # Four numbers wide, for kernels read aligned addresses: they need not be compiled for others as well.
            self._seeds = torch.zeros((len(self.groups), 4), dtype=torch.int32, device=device)
            for group, row in zip(self.groups, self._seeds, strict=True):
                group.seed_at = row[:1]
        on_host = torch.zeros(self._seeds.shape, dtype=torch.int32, pin_memory=True)
        on_host[:, 0] = seeds
        self._seeds.copy_(on_host, non_blocking=True)

    @property
    def parameters(self) -> list[torch.Tensor]:
        """Of all groups, one after the other."""
        return [parameter for group in self.groups for parameter in group.parameters]

    @contextmanager
    def fresh_leaves(self) -> Iterator[list[torch.Tensor]]:
        """Inside, gradients are those of the tensors that are yielded: the same memory, never differentiated before.

        Autograd remembers the stream on which a tensor was first differentiated, and would have a recording's stream
        wait for it.
        """
        for group in self.groups:
            group.leaves = [parameter.detach().requires_grad_() for parameter in group.parameters]
        try:
            yield [leaf for group in self.groups for leaf in group.leaves]
        finally:
            for group in self.groups:
                group.leaves = group.parameters

    @contextmanager
    def same_seeds(self) -> Iterator[None]:
        """Inside, passes draw no seeds: they use those of the last draw."""
        self._seeds_stay = True
        try:
            yield
        finally:
            self._seeds_stay = False


def fuse_adapters(model: Any) -> FusedAdapters:
    """Replace the forward of every LoRA projection of a PeftModel, for training; evaluation keeps PEFT's.

    Args:
        model: a PeftModel with one plain LoRA adapter of float32 matrices.

    Returns:
        The groups; projections that are in none (biased or variant adapters) stay PEFT's.
    """
    groups = [group for parent in model.modules() for group in _groups_below(parent)]
    for group in groups:
        for member, module in enumerate(group.modules):
            module.forward = types.MethodType(_member_forward(group, member), module)
    fused = FusedAdapters(groups)
    model.get_base_model().register_forward_pre_hook(fused.prepare)
    return fused


def _groups_below(parent: Any) -> Iterator[Group]:
    children = {name: child for name, child in parent.named_children() if _is_plain(child)}
    for names in TOGETHER:
        siblings = [children[name] for name in names if name in children]
        if len(siblings) > 1 and len({_kind(module) for module in siblings}) == 1:
            yield _make(siblings)
            for name in names:
                children.pop(name, None)
    for child in children.values():
        yield _make([child])


def _make(modules: list[Any]) -> Group:
    return Group(modules, *_kind(modules[0])[2:])


def _kind(module: Any) -> tuple[int, int, float, float]:
    a = module.lora_A["default"].weight
    return *a.shape, getattr(module.lora_dropout["default"], "p", 0.0), module.scaling["default"]


def _is_plain(module: Any) -> bool:
    from peft.tuners.lora import LoraLayer

    if not isinstance(module, LoraLayer) or list(module.lora_A) != ["default"]:
        return False
    linear = isinstance(module.lora_A["default"], torch.nn.Linear) and not module.lora_variant
    return linear and module.lora_B["default"].bias is None and hasattr(module.base_layer, "bias")


def _member_forward(group: Group, member: int) -> Any:
    def forward(module: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if not module.training or module.disable_adapters or module.merged or args or kwargs:
            plain: torch.Tensor = type(module).forward(module, x, *args, **kwargs)
            return plain
        return group.forward(member, x)

    return forward


def _compute_dtype(x: torch.Tensor) -> torch.dtype:
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
