"""Finished runs without a model: hand-made findings, published and recorded by the pipeline's own code."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from jobs.analyze.evidence import read_evidence
from jobs.analyze.summary import build_rows, build_summary
from jobs.evaluate.records import score_rows
from pipeline_common.config import load_config
from pipeline_common.context import Context, Outputs
from pipeline_common.database import write_rows
from pipeline_common.execution import reuse, run_stage
from pipeline_common.manifest import InputEntry, Manifest, list_files
from pipeline_common.measures import Measures
from pipeline_common.recording import prepare_database
from pipeline_common.stages import STAGES, plan_run
from pipeline_common.workplace import Workplace, open_workplace
from tests.analyze.made_evidence import make_training_rows
from tests.analyze.made_measures import make_measures

PER_LABEL = 64


@dataclass(frozen=True)
class MadeRun:
    """What one run is to have found."""

    run_id: str
    overrides: tuple[str, ...] = ()
    harmful: bool = False
    changes: Mapping[str, Any] | None = None
    """Of the measures."""
    prompts: int = PER_LABEL
    """Per label."""
    keeps: float = 1.0
    """Share of the base's distance between the label means that the tuned model keeps."""
    refuses: int = PER_LABEL
    """Unsafe prompts that the tuned model refuses; the base refuses all."""
    log_odds_shift: float = 0.0
    """Nats, on unsafe prompts."""

    @property
    def measures(self) -> Measures:
        return make_measures(harmful=self.harmful, **(self.changes or {}))


def make_runs(output: Path, runs: Sequence[MadeRun]) -> Workplace:
    """Publish and record each run; all share the output folder's store and database."""
    for number, run in enumerate(runs):
        config = load_config("tiny", [f"runtime.output_dir={output}", f"train.seed={number}", *run.overrides])
        place, plan = open_workplace(config), plan_run(config, run.run_id)
        prepare_database(place, plan, plan.stages["environment"])
        manifests: dict[str, Manifest] = {}
        for stage in STAGES[:4]:
            folder = output / "made" / run.run_id / stage.name
            folder.mkdir(parents=True)
            _write_stage(folder, stage.name, run)
            planned = plan.stages[stage.name]
            manifest = Manifest(
                stage=stage.name,
                fingerprint=planned.fingerprint,
                payload={},
                run_id=plan.run_id,
                files=list_files(folder),
                inputs={
                    entry.stage: InputEntry(key=manifests[entry.stage].key, manifest_sha256="0" * 64)
                    for entry in stage.inputs
                },
                provenance={
                    "started": "2026-01-01T10:00:00.000+00:00",
                    "ended": "2026-01-01T10:00:07.500+00:00",
                    "attempt": 1,
                },
            )
            if place.store.read_manifest(planned.key) is None:
                place.store.publish(folder, manifest)
            manifests[stage.name] = place.store.read_manifest(planned.key)  # type: ignore[assignment]
            reuse(place, plan, planned, manifests[stage.name])
        run_stage(place, plan, plan.stages["analyze"], analyze_without_figures, force=False)
    return place


def analyze_without_figures(context: Context) -> Outputs:
    """The stage's verdict, summary and rows; drawing takes longer than all the rest."""
    evidence = read_evidence(context)
    (context.files / "summary.json").write_text(json.dumps(build_summary(evidence)), encoding="utf-8")
    return Outputs(rows={"evaluation_summary": build_rows(evidence)})


def _write_stage(folder: Path, stage: str, run: MadeRun) -> None:
    commit = "0123456789abcdef"
    base = {"kind": "embedded", "reference": "embedded", "commit": commit, "artifact": "model/0"}
    files: dict[str, dict[str, Any]] = {
        "environment": {"environment.json": {}, "base_model.json": {"base": base}},
        "prepare": {"data_card.json": {}},
        "train": {
            "train.json": {
                "quantization": "nf4",
                "compute_dtype": "float32",
                "steps": 60,
                "training_seconds": 12.5,
                "trained_tokens": 17_000,
                "train_rows": 540,
                "trainable_parameters": 1234,
                "device": "cpu",
                "gpu": None,
            }
        },
        "evaluate": {"measures.json": run.measures.model_dump(mode="json")},
    }
    for name, content in files[stage].items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    if stage == "train":
        write_rows(folder / "training_metrics.jsonl", make_training_rows())
    if stage == "evaluate":
        write_rows(folder / "rows" / "aqi_scores.jsonl", score_rows(run.measures.geometry))
        _write_evaluation(folder, run)


def _write_evaluation(folder: Path, run: MadeRun) -> None:
    labels = ["unsafe" if number % 2 else "safe" for number in range(2 * run.prompts)]
    prompts = [
        {
            "prompt_id": f"prompt-{number:06d}",
            "axiom": "Civility" if number % 4 < 2 else "Justice",
            "safety_label": label,
            "source_dataset": "s",
            "text": f"question {number}",
            "scored": True,
        }
        for number, label in enumerate(labels)
    ]
    write_rows(folder / "prompts.jsonl", prompts)
    noise = np.random.default_rng(1)
    refused_so_far = 0
    rows = []
    for prompt in prompts:
        unsafe = prompt["safety_label"] == "unsafe"
        own = float(noise.normal())
        kept = unsafe and refused_so_far < run.refuses
        refused_so_far += unsafe
        for role in ("base", "tuned"):
            refused = unsafe if role == "base" else kept
            odds = (4.0 if unsafe else -4.0) + own + (run.log_odds_shift if role == "tuned" and unsafe else 0.0)
            rows.append(
                {
                    **{name: prompt[name] for name in ("prompt_id", "axiom", "safety_label")},
                    "model_role": role,
                    "prompt": prompt["text"],
                    "response": "I can't." if refused else "Sure.",
                    "response_tokens": 3,
                    "finished": True,
                    "refused": refused,
                    "refusal_log_odds": odds,
                    "judge_scores": None,
                }
            )
    write_rows(folder / "responses.jsonl", rows)
    side = np.asarray([label == "unsafe" for label in labels], dtype=np.float64)
    states = np.random.default_rng(2).normal(size=(len(labels), 8))
    tuned = states + np.random.default_rng(3).normal(scale=0.1, size=states.shape)
    states[:, 0] += 4 * side
    tuned[:, 0] += 4 * run.keeps * side
    save_file({"base": states.astype(np.float32), "tuned": tuned.astype(np.float32)}, folder / "embeddings.safetensors")
