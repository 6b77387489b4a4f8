"""FSDP-QLoRA: each process keeps a part of the frozen base, and has a layer's whole weights only while it computes.

Only the base is sharded (torch's fully_shard, layer by layer). The adapter, half a per cent of the parameters, is whole
in every process and its gradients are averaged here: so checkpoints, resuming and the saved adapter are those of one
process, and nothing has to be gathered to save them.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from jobs.train.distributed import Team
from jobs.train.distributed_trainer import TeamTrainer


class ShardedTrainer(TeamTrainer):
    """TRL's padded batches on a sharded base."""

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
        """One pass; after a step's last one all have the mean gradients, as with DDP."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self.accelerator.sync_gradients:
            average_gradients(model, self.team.place.processes)
        return loss


def shard_base(trainer: ShardedTrainer, team: Team, device: str) -> None:
    """Shard the decoder's layers over all processes, in place.

    Args:
        trainer: built; its base was packed into floating-point storage (`load_base`).
        team: met.
        device: `cpu` or `cuda`.
    """
    model, place = trainer.model, torch.device(device, team.place.local_rank if device == "cuda" else None)
    adapter = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in adapter:
        parameter.data = parameter.data.to(place)
        distributed.broadcast(parameter.data, src=0)
    base = model.get_base_model()
    trunk = base.base_model
    mesh = init_device_mesh(device, (team.place.processes,))
    for layer in trunk.layers:
        # One layer after the other comes to the GPU, which never holds more of the base than its part and a layer.
        fully_shard(layer, mesh=mesh, ignored_params=set(adapter))
        for module in layer.modules():
            if getattr(module, "quant_state", None) is not None:
                module.quant_state.to(place)
    # Embeddings, norm and head stay whole; the trunk only fetches layers ahead of their turn.
    inside = {parameter for layer in trunk.layers for parameter in layer.parameters()}
    outside = [tensor for tensor in (*base.parameters(), *base.buffers()) if tensor not in inside]
    for tensor in outside:
        tensor.data = tensor.data.to(place)
    fully_shard(trunk, mesh=mesh, ignored_params={*adapter, *(set(trunk.parameters()) - inside)})
    base.hf_device_map = {"": place.index if device == "cuda" else "cpu"}
    # Not wrapped in DDP, which takes no sharded parameters; autocast is put on all the same.
    trainer.accelerator.prepare_model = partial(trainer.accelerator.prepare_model, evaluation_mode=True)


def average_gradients(model: Any, processes: int) -> None:
    """The mean of the processes' gradients, in place; one message for all of them."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    joined = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(joined)
    joined /= processes
    for gradient, part in zip(gradients, joined.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
