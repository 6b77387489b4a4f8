"""Trackers: asked for by name, refused when their package is not there, handed to the trainer."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from jobs.train.building import build_arguments
from jobs.train.recipe import Recipe
from jobs.train.rows import read_rows
from jobs.train.schedule import plan_steps
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


FAKE_TENSORBOARDX = '''
"""Writes what it is told into a file, as the real one writes event files."""
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


class SummaryWriter:
    def __init__(self, log_dir):
        Path(log_dir).mkdir(parents=True, exist_ok=True)
        self.path = Path(log_dir) / "told.jsonl"

    def add_scalar(self, name, value, step):
        with self.path.open("a") as stream:
            stream.write(json.dumps([name, value, step]) + "\\n")

    def add_text(self, *_):
        pass

    def flush(self):
        pass

    close = flush
'''


def test_a_tracker_hears_every_step_and_changes_no_byte(
    prepare_run: Callable[..., Any], undisturbed: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A stand-in for the package that is not installed here; trainer and callback are the real ones."""
    site = tmp_path / "site"
    (site / "tensorboardX").mkdir(parents=True)
    (site / "tensorboardX" / "__init__.py").write_text(FAKE_TENSORBOARDX)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "unset")
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR")
    finished = prepare_run("train.report_to=[tensorboard]").train()
    assert finished.manifest.fingerprint == undisturbed.manifest.fingerprint
    assert finished.adapter_digests() == undisturbed.adapter_digests()
    prepared = finished.prepared
    log = prepared.place.output / "tensorboard" / prepared.plan.run_id / "told.jsonl"
    told = [json.loads(line) for line in log.read_text().splitlines()]
    losses = {step: value for name, value, step in told if name == "train/loss"}
    rows = [json.loads(line) for line in (finished.folder / "training_metrics.jsonl").read_text().splitlines()]
    trained = {row["step"]: row["loss"] for row in rows if row["split"] == "train"}
    assert list(losses) == list(range(1, 17))
    assert losses == pytest.approx(trained, rel=1e-3)
