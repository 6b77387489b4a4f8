"""All fused adapters of a model: which projections form a group, and what groups need before each pass."""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import torch

from jobs.train.fused_lora import Group, compute_dtype

# Siblings that read the same input in every model that has them; where one does not, it is only slower.
TOGETHER: Final = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


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
        dtype, device = compute_dtype(next(inner.parameters())), parameters[0].device
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
