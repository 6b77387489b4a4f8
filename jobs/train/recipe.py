"""What one fine-tune is made from, decided before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from jobs.train.engine import PLAIN, Engine
from jobs.train.rows import LabelledRows
from pipeline_common.clock import PhaseClock
from pipeline_common.logs import get_logger

if TYPE_CHECKING:
    from jobs.train.checkpoint_copies import CheckpointCopies
    from jobs.train.distributed import Team
    from jobs.train.schedule import Schedule
    from pipeline_common.config import TrainConfig
    from pipeline_common.gpu.models import Placement

_log = get_logger(__name__)


def _warn(name: str, detail: str) -> None:
    _log.warning("%s: %s", name, detail)


@dataclass(frozen=True)
class Recipe:
    """Everything one fine-tune is made from."""

    train: TrainConfig
    placement: Placement
    optimizer: str
    schedule: Schedule
    train_rows: LabelledRows
    validation_rows: LabelledRows
    checkpoints: Path
    copies: CheckpointCopies | None = None
    """Where checkpoints go besides; None where this machine's disk is safe enough."""
    engine: Engine = PLAIN
    on_less_memory: Callable[[str], None] = _log.warning
    """Told if passes need more memory than measured, and what is done about it."""
    degrade: Callable[[str, str], object] = _warn
    """Told name and detail of what this machine cannot do as planned."""
    team: Team | None = None
    """The processes that train together; None when this one trains alone."""
    clock: PhaseClock = field(default_factory=PhaseClock)
    """Where the seconds go."""

    @property
    def processes(self) -> int:
        """How many train together."""
        return 1 if self.team is None else self.team.place.processes


def describe_arithmetic(recipe: Recipe) -> dict[str, str]:
    """What two attempts must share for one to go on from the other's checkpoint."""
    placement = recipe.placement
    return {
        "device": placement.device,
        "compute_dtype": str(placement.compute_dtype).removeprefix("torch."),
        "quantization": placement.quantization,
        "optimizer": recipe.optimizer,
        "engine": recipe.engine.name,
        "torch": str(torch.__version__),
    }
