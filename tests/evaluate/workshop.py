"""Runs the whole stage on a small model that refuses, with real stores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline_common.config import load_config
from pipeline_common.measures import Measures
from tests.evaluate.made_models import labelled_prompts, publish_inputs

FILES = (
    "measures.json",
    "activations_base.safetensors",
    "activations_tuned.safetensors",
    "embeddings.safetensors",
    "prompts.jsonl",
    "responses.jsonl",
    "judge_steps.json",
)


class Workshop:
    """Runs the stage in folders of its own."""

    def __init__(self, base: Path, adapter: Path, folder: Path) -> None:
        self.base, self.adapter, self.folder = base, adapter, folder

    def evaluate(
        self, name: str, *overrides: str, adapter: Path | None = None, judge: bool = False, prompts: Any = None
    ) -> Path:
        from jobs.evaluate.stage import run
        from pipeline_common.execution import run_stage

        settings = [
            f"model.base={self.base}",
            "model.quantization=none",
            f"runtime.output_dir={self.folder / name}",
            "evaluate.prompts_per_class=64",
            "evaluate.resamples=200",
            "evaluate.permutations=199",
            "evaluate.max_new_tokens=12",
            *([f"evaluate.judge.model={self.base}"] if judge else ["evaluate.judge.kind=none"]),
            *overrides,
        ]
        config = load_config("tiny", settings)
        place, plan = publish_inputs(
            config,
            self.base,
            adapter or self.adapter,
            judge=self.base if judge else None,
            prompts=labelled_prompts() if prompts is None else prompts,
        )
        manifest = run_stage(place, plan, plan.stages["evaluate"], run, force=False)
        return place.store.locate(manifest)


def read_measures(folder: Path) -> Measures:
    return Measures.model_validate_json((folder / "measures.json").read_text(encoding="utf-8"))


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
