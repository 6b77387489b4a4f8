"""Experiment trackers that the trainer reports to besides its own files, on request (`train.report_to`)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from pipeline_common.errors import ConfigError

_PACKAGES: Final = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "mlflow": ("mlflow", "mlflow_skinny"),
    "wandb": ("wandb",),
}


def prepare_trackers(names: Sequence[str], logs: Path) -> None:
    """See that every tracker can be imported, and tell TensorBoard where its files go.

    MLflow and W&B read their own variables (`MLFLOW_TRACKING_URI`, `WANDB_MODE` and so on).

    Args:
        names: of `train.report_to`.
        logs: TensorBoard's folder for this run, unless TENSORBOARD_LOGGING_DIR names another.

    Raises:
        ConfigError: a package is not installed.
    """
    for name in names:
        packages = _PACKAGES[name]
        if not any(find_spec(package) for package in packages):
            raise ConfigError(
                f"train.report_to names {name}, but the package {packages[0]} is not installed in this environment; "
                f"install it there (pip install {packages[0]}) or leave {name} out"
            )
    if "tensorboard" in names:
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(logs))
