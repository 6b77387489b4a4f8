"""Trackers: asked for by name, refused when their package is not there, handed to the trainer."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from jobs.train.rows import read_rows
from jobs.train.schedule import plan_steps
from jobs.train.sft import Recipe, build_arguments
from jobs.train.trackers import prepare_trackers
from pipeline_common.config import TrainConfig, load_config
from pipeline_common.errors import ConfigError
from pipeline_common.gpu.models import Placement


@pytest.fixture
def empty_site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An import path on which no tracker is installed, whatever this machine has; packages can be put there."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.setattr(sys, "path", [str(site)])
    for name in ("tensorboard", "tensorboardX", "mlflow", "mlflow_skinny", "wandb"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    # Registered here, so that what prepare_trackers sets is undone.
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "unset")
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR")
    return site


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_a_tracker_that_is_not_installed_is_refused(name: str, empty_site: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"train.report_to names {name}, .*pip install {name}"):
        prepare_trackers((name,), tmp_path / "logs")
    assert "TENSORBOARD_LOGGING_DIR" not in os.environ


def test_an_installed_one_is_accepted_and_tensorboard_gets_a_folder(empty_site: Path, tmp_path: Path) -> None:
    for name in ("tensorboardX", "wandb"):
        (empty_site / name).mkdir()
        (empty_site / name / "__init__.py").write_text("")
    prepare_trackers(("wandb", "tensorboard"), tmp_path / "logs")
    assert os.environ["TENSORBOARD_LOGGING_DIR"] == str(tmp_path / "logs")


def test_the_choice_is_validated() -> None:
    assert load_config("tiny").train.report_to == ()
    assert load_config("tiny", ["train.report_to=[wandb, mlflow]"]).train.report_to == ("wandb", "mlflow")
    with pytest.raises(ConfigError, match=r"train\.report_to\.0"):
        load_config("tiny", ["train.report_to=[neptune]"])


def test_the_trainer_is_told(train_table: pa.Table, tmp_path: Path) -> None:
    pq.write_table(train_table, tmp_path / "rows.parquet")
    rows = read_rows(tmp_path / "rows.parquet", vocabulary=384, positions=128)
    silent = TrainConfig(max_steps=2)
    recipe = Recipe(
        train=silent,
        placement=Placement("cpu", torch.float32, "none"),
        optimizer="adamw_torch",
        schedule=plan_steps(rows.count, silent),
        train_rows=rows,
        validation_rows=rows,
        checkpoints=tmp_path / "checkpoints",
    )
    told = dataclasses.replace(recipe, train=TrainConfig(max_steps=2, report_to=("wandb",)))
    assert build_arguments(recipe).report_to == []
    assert build_arguments(told).report_to == ["wandb"]
