"""What every process of a training is told: the same for all but their place."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pipeline_common.config import Config


class Order(BaseModel):
    """One training: its settings and its files on this machine."""

    model_config = ConfigDict(frozen=True)

    config: Config
    model: Path
    """Folder of the base model."""
    train_rows: Path
    validation_rows: Path
    checkpoints: Path
    """Folder; the one of process 0 for all processes of its machine, another on every other machine."""
    leader: str = "localhost"
    """Host name of process 0's machine, and its store's port."""
    port: int = 0
    rank: int = 0
    local_rank: int = 0
    """The number of this process's GPU."""
