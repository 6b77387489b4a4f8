from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline_common.config import load_config
from pipeline_common.manifest import Manifest
from pipeline_common.model_location import MODELS_FILE
from pipeline_common.stages import REPOSITORY, plan_run
from pipeline_common.workplace import open_workplace
from tests.made_stages import publish_stage
from tests.prepare.made_tokenizers import llama2_style, save_model_folder

Rows = Sequence[Mapping[str, Any]]


def make_rows(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Rows in the four columns of the real set: a teacher's preamble, transcripts, one instruction each."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        thing = draw.choice(["fence", "table", "lamp", "chair", "café door"])
        history = f"\n\nHuman: Hello, I have a {thing}.\n\nAssistant: What about it?" if number % 3 == 0 else ""
        ask = f"{history}\n\nHuman: How do I repair {thing} number {number}?"
        accepted = f"{ask}\n\nAssistant: Take your time and a hammer for {thing} {number}."
        rejected = f"{ask}\n\nAssistant: Throw {thing} {number} away."
        rows.append(
            {
                "Accepted Response": accepted,
                "Rejected Response": rejected,
                "Instruction generated": f"Answer patiently and practically, case {number}.",
                "Prompt": f"You never kill a conversation.\n\nPreferred:{accepted}\n\nRejected:{rejected}\n\nAdvise.",
            }
        )
    return rows


def make_prompts(safe: int, unsafe: int) -> list[dict[str, str]]:
    """Labelled prompts in the five columns of the real set, over two axioms."""
    labels = ["safe"] * safe + ["unsafe"] * unsafe
    return [
        {
            "axiom": ("Duty", "Justice")[number % 2],
            "safety_label": label,
            "source_dataset": "made",
            "input": f"Is request {number} of the {label} kind fine?",
            "target": "",
        }
        for number, label in enumerate(labels)
    ]


def write_parquet(path: Path, rows: Rows) -> Path:
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
    return path


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return llama2_style()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    return save_model_folder(tokenizer, tmp_path_factory.mktemp("model"))


@dataclass(frozen=True)
class PrepareRun:
    """A run whose environment is published; data files lie in `folder`."""

    folder: Path
    model: Path

    @property
    def output(self) -> Path:
        return self.folder / "output"

    def settings(self, *overrides: str) -> list[str]:
        return [
            f"model.base={self.model}",
            f"runtime.output_dir={self.output}",
            "evaluate.judge.kind=none",
            "evaluate.prompts_per_class=64",
            *overrides,
        ]

    def start(self, *overrides: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the stage as its own process, with the environment stage's artifact in place."""
        self.publish_environment(*overrides)
        command = [sys.executable, "-m", "jobs.prepare", "--config", "tiny", *self.settings(*overrides)]
        return subprocess.run(
            command, cwd=REPOSITORY, env=os.environ | environment, capture_output=True, text=True, timeout=300
        )

    def run(self, *overrides: str) -> tuple[Path, Manifest]:
        """Run the stage here; returns the artifact's folder and manifest."""
        from jobs.prepare.stage import run
        from pipeline_common.execution import run_stage

        place, plan = self.publish_environment(*overrides)
        manifest = run_stage(place, plan, plan.stages["prepare"], run, force=True)
        return place.store.locate(manifest), manifest

    def publish_environment(self, *overrides: str) -> tuple[Any, Any]:
        config = load_config("tiny", self.settings(*overrides))
        place, plan = open_workplace(config), plan_run(config)
        place.database.migrate()
        made = self.folder / "environment"
        made.mkdir(exist_ok=True)
        models = {"base": {"kind": "local", "reference": str(self.model), "commit": "0" * 40}}
        (made / MODELS_FILE).write_text(json.dumps(models))
        publish_stage(place, plan, "environment", made)
        return place, plan


@pytest.fixture
def prepare(tmp_path: Path, model_folder: Path) -> PrepareRun:
    return PrepareRun(tmp_path, model_folder)
