from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline_common.config import load_config
from pipeline_common.manifest import Manifest
from pipeline_common.stages import PlannedStage
from tests.liger_patches import transformers_own_layers
from tests.train.made_inputs import build_model, list_overrides, make_rows, publish_inputs

# Set before torch is imported: spinning threads cost a small model several times its own work.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

TRAIN_ROWS, VALIDATION_ROWS = 90, 20


@dataclass(frozen=True)
class Prepared:
    """A run whose inputs are published and whose training has not started."""

    overrides: list[str]
    place: Any
    plan: Any

    @property
    def planned(self) -> PlannedStage:
        return self.plan.stages["train"]

    @property
    def checkpoints(self) -> Path:
        return self.place.output / "work" / f"train-{self.planned.fingerprint}" / "checkpoints"

    def train(self) -> Finished:
        from jobs.train.stage import run
        from pipeline_common.execution import run_stage

        manifest = run_stage(self.place, self.plan, self.planned, run, force=False)
        return Finished(self, manifest, self.place.store.locate(manifest))


@dataclass(frozen=True)
class Finished:
    """A run whose training is published."""

    prepared: Prepared
    manifest: Manifest
    folder: Path

    def adapter_digests(self) -> dict[str, str]:
        return {entry.path: entry.sha256 for entry in self.manifest.files if entry.path.startswith("adapter/")}


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def tokenizer(model_folder: Path) -> Any:
    from pipeline_common.gpu.tokenizer import load_tokenizer

    return load_tokenizer(model_folder)


@pytest.fixture(scope="session")
def train_table(tokenizer: Any) -> pa.Table:
    return make_rows(tokenizer, TRAIN_ROWS)


@pytest.fixture(scope="session")
def validation_table(tokenizer: Any) -> pa.Table:
    return make_rows(tokenizer, VALIDATION_ROWS, offset=TRAIN_ROWS)


@pytest.fixture(scope="session")
def prepare_run(
    model_folder: Path, train_table: pa.Table, validation_table: pa.Table, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Prepared]:
    def prepare(*overrides: str) -> Prepared:
        settings = list_overrides(model_folder, tmp_path_factory.mktemp("output"), *overrides)
        return Prepared(settings, *publish_inputs(load_config("tiny", settings), train_table, validation_table))

    return prepare


@pytest.fixture(scope="session")
def undisturbed(prepare_run: Callable[..., Prepared]) -> Finished:
    """The run that all disturbed ones must equal."""
    return prepare_run().train()


@pytest.fixture(autouse=True)
def own_layers(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test on a GPU finds Liger's layers because one before it trained with them."""
    with transformers_own_layers() if request.node.get_closest_marker("gpu") else nullcontext():
        yield


@pytest.fixture
def build(
    train_table: pa.Table, validation_table: pa.Table, model_folder: Path, tokenizer: Any, tmp_path: Path
) -> Iterator[Any]:
    """Makes trainers (`tests.train.made_trainers.Build`)."""
    from jobs.train.rows import read_rows
    from tests.train.made_trainers import TrainerMaker

    rows = []
    for name, table in (("train", train_table), ("validation", validation_table)):
        pq.write_table(table, tmp_path / f"{name}.parquet")
        rows.append(read_rows(tmp_path / f"{name}.parquet", vocabulary=384, positions=128))
    with ExitStack() as stack:
        yield TrainerMaker(model_folder, tokenizer, rows[0], rows[1], tmp_path, stack)
