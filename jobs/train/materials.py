"""What a training is made from, loaded the same way in every process."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from jobs.train.engine import choose_engine
from jobs.train.recipe import Recipe
from jobs.train.rows import read_rows
from jobs.train.schedule import plan_steps
from pipeline_common.clock import PhaseClock
from pipeline_common.gpu.models import load_base
from pipeline_common.gpu.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from jobs.train.checkpoint_copies import CheckpointCopies
    from jobs.train.distributed import Team
    from jobs.train.order import Order
    from pipeline_common.gpu.models import Placement


def build_recipe(
    order: Order,
    placement: Placement,
    optimizer: str,
    degrade: Callable[[str, str], None],
    *,
    copies: CheckpointCopies | None = None,
    team: Team | None = None,
    clock: PhaseClock | None = None,
) -> Recipe:
    """Read and check the rows, and decide on the engine.

    Raises:
        InputError: rows that do not fit the model.
        ConfigError: rows longer than the model takes.
    """
    # On the CPU every operation used here has a deterministic form; on a GPU some cost much or are missing.
    torch.use_deterministic_algorithms(placement.device == "cpu")
    sizes = json.loads((order.model / "config.json").read_text(encoding="utf-8"))
    vocabulary, positions = int(sizes["vocab_size"]), sizes.get("max_position_embeddings")
    train = order.config.train
    train_rows = read_rows(order.train_rows, vocabulary, positions)
    clock = clock or PhaseClock()
    with clock.phase("trying the kernels", "compile"):
        engine = choose_engine(train, placement, degrade)
    return Recipe(
        train=train,
        placement=placement,
        optimizer=optimizer,
        schedule=plan_steps(train_rows.count, train),
        train_rows=train_rows,
        validation_rows=read_rows(order.validation_rows, vocabulary, positions),
        checkpoints=order.checkpoints,
        copies=copies,
        engine=engine,
        on_less_memory=lambda detail: degrade("less memory than measured", detail),
        degrade=degrade,
        team=team,
        clock=clock,
    )


def load_models(order: Order, placement: Placement) -> tuple[Any, Any]:
    """The frozen base model and its tokenizer."""
    # FSDP divides floating-point numbers only; the bits in them are the same.
    packed = placement.compute_dtype if order.config.train.sharding == "full" else None
    return load_base(order.model, placement, packed=packed), load_tokenizer(order.model)
