"""The flat engine's parts, put into a trainer that has been built."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow.compute as pc

from jobs.train.batch_plan import Work
from jobs.train.flat import FlatTrainer, add_flat_loss
from jobs.train.fused_adapters import fuse_adapters
from jobs.train.memory import plan_batches, set_checkpointing
from jobs.train.recording import record_passes

if TYPE_CHECKING:
    from jobs.train.batch_plan import BatchPlan
    from jobs.train.recipe import Recipe


def make_flat(trainer: FlatTrainer, recipe: Recipe, *, fuse: bool = True) -> BatchPlan:
    """Put the flat engine's parts into a built trainer, and decide how much goes through at once.

    Args:
        trainer: from `build_trainer`; it is changed in place.
        recipe: what it was built from.
        fuse: compute adapters in one operation; False leaves PEFT's, to compare with.
    """
    # A loaded base is in evaluation mode, whatever the wrapper around it says.
    trainer.model.train()
    add_flat_loss(trainer.model.get_base_model(), liger=recipe.engine.liger)
    if fuse:
        trainer.adapters = fuse_adapters(trainer.model)
    lengths = [
        length
        for rows in (recipe.train_rows, recipe.validation_rows)
        for length in pc.list_value_length(rows.table.column("input_ids")).to_pylist()
    ]
    train = recipe.train
    work = Work.of(lengths, train.batch_size * train.gradient_accumulation)
    # The passes that are measured here are the first ones: they compile the kernels.
    with recipe.clock.phase("choosing the size of a pass", "compile"):
        plan = plan_batches(
            trainer,
            work,
            checkpointing=train.activation_checkpointing,
            tokens=train.tokens_per_batch,
            limit_gib=train.memory_gib,
        )
    trainer.tokens_per_batch = plan.tokens_per_batch
    trainer.on_less_memory = recipe.on_less_memory
    set_checkpointing(trainer.model, plan.recomputed_layers)
    if plan.weights_kept and trainer.adapters:
        for group in trainer.adapters.groups:
            group.keep_weights(recipe.placement.compute_dtype)
    trainer.recorded = record_passes(trainer, recipe, plan, work)
    return plan
