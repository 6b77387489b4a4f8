"""An optimizer that sees all matrices of an adapter as one vector: one update instead of hundreds of small ones.

Adam computes with each number by itself, so nothing changes but the time. (bitsandbytes' optimizers wait for the GPU
after each parameter; a step of 448 matrices takes them some 50 ms, of which the GPU works on one.)
"""

from __future__ import annotations

from typing import Any

import torch


def join_parameters(optimizer: torch.optim.Optimizer) -> None:
    """Replace each parameter group by one vector that its parameters are views of.

    Gradients stay with the parameters, for clipping; they are joined when a step is made, and the vector's is dropped
    after it. Call it before the first step. Groups of parameters of different type or device, or of one, stay as they
    are; so do all groups where states are kept in 8 bits, since those are rounded in blocks. Parameters that something
    moves in the meantime (to another device object of the same processor, say) are put back with their values.
    """
    if getattr(getattr(optimizer, "args", None), "optim_bits", 32) != 32:
        return
    joined: list[tuple[Any, list[Any]]] = []
    for group in optimizer.param_groups:
        members = group["params"]
        if len(members) > 1 and len({(member.dtype, member.device) for member in members}) == 1:
            group["params"] = [_join(members)]
            joined.append((group["params"][0], members))

    def gather(*_: Any) -> None:
        for vector, members in joined:
            _put_back(vector, members)
            gradients = [torch.zeros_like(member) if member.grad is None else member.grad for member in members]
            vector.grad = torch.cat([gradient.reshape(-1) for gradient in gradients])

    def drop(*_: Any) -> None:
        for vector, _members in joined:
            vector.grad = None

    optimizer.register_step_pre_hook(gather)
    optimizer.register_step_post_hook(drop)


def _join(members: list[torch.nn.Parameter]) -> torch.nn.Parameter:
    vector = torch.nn.Parameter(torch.cat([member.detach().reshape(-1) for member in members]))
    _put_back(vector, members)
    return vector


def _put_back(vector: torch.nn.Parameter, members: list[torch.nn.Parameter]) -> None:
    """Make each member a view of its part of the vector, which takes its values over."""
    for part, member in zip(vector.detach().split([member.numel() for member in members]), members, strict=True):
        if member.data_ptr() != part.data_ptr():
            part.copy_(member.detach().reshape(-1))
            member.data = part.view(member.shape)
