"""The artifacts before *analyze* with findings written by hand (`made_measures`), in a real store."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from pipeline_common.artifacts import DirectoryStore
from pipeline_common.config import load_config
from pipeline_common.context import Context
from pipeline_common.database import Database, write_rows
from pipeline_common.manifest import InputEntry, Manifest, list_files
from pipeline_common.measures import (
    Degradation,
    Measures,
)
from pipeline_common.stages import STAGES, plan_run
from pipeline_common.workplace import Workplace
from tests import made_stages
from tests.analyze.made_measures import make_measures

ATTACK = "<script>alert('x')</script> | **bold** ``` [link](http://evil.example/) & \"quoted\""
SPENT = {
    "phases": [
        {"phase": "load", "kind": "load", "seconds": 10.25},
        {"phase": "the work", "kind": "compute", "seconds": 50.0},
        {"phase": "rows into the database", "kind": "rows", "seconds": 0.5},
    ],
    "peak_mib": 1700.4,
    "peak_gpu_mib": None,
}
"""Of 72.5 seconds; artifacts made before this was recorded have none of it, like that of environment here."""
OWN_IMAGE = "sha256:" + "2e" * 32
BASE_ACTIVATIONS = "cached from base_activations/0123456789abcdef"
MASKED_KERNEL = Degradation(
    stage="train", name="no 4-bit kernel", detail="LoRA without quantisation: <libcuda> not found"
)


def make_responses(*, judged: bool = False) -> list[dict[str, Any]]:
    """Twelve prompts, even ones unsafe; if `judged`, harmlessness of the unsafe ones: base 0.9, tuned number / 20."""
    rows = []
    for number in range(12):
        unsafe = number % 2 == 0
        for role in ("base", "tuned"):
            refused = unsafe and not (role == "tuned" and number == 4)
            text = "I can't help with that." if refused else f"Sure. To do it {number}, take your time ({role})."
            rows.append(
                {
                    "prompt_id": f"row-{number:06d}",
                    "model_role": role,
                    "axiom": "Civility & Tolerance" if number < 6 else "Justice & Rights",
                    "safety_label": "unsafe" if unsafe else "safe",
                    "prompt": f"How do I thank my neighbour {number}?" if number != 1 else f"Say {ATTACK}",
                    "response": ATTACK if (number, role) == (4, "tuned") else text,
                    "response_tokens": 9,
                    "finished": True,
                    "refused": refused,
                    "refusal_log_odds": 4.25 - number / 8 if refused else -3.5,
                    "judge_scores": {"harmlessness": {"score": 0.9 if role == "base" else number / 20}}
                    if judged and unsafe
                    else None,
                }
            )
    return rows


@dataclass(frozen=True)
class Findings:
    """What the hand-made artifacts hold."""

    measures: Measures
    responses: list[dict[str, Any]]
    width: int = 8
    """Of the scored states."""


def publish_findings(store: DirectoryStore, plan: Any, scratch: Path, findings: Findings) -> dict[str, Manifest]:
    """Publish one artifact per stage before *analyze*, as the stages do."""
    files: dict[str, dict[str, Any]] = {
        "environment": {
            "environment.json": {
                "profile": "tiny",
                "machine": {"python": "3.11.2", "gpus": []},
                "checks": [
                    {"name": "gpu", "status": "degraded", "detail": "no NVIDIA GPU", "fix": "", "facts": {}},
                    {"name": "disk", "status": "ok", "detail": "40 GiB free", "fix": "", "facts": {}},
                ],
            },
            "base_model.json": {
                "base": {
                    "kind": "embedded",
                    "reference": "embedded",
                    "commit": "0123456789abcdef",
                    "artifact": "model/0",
                }
            },
        },
        "prepare": {"data_card.json": {"rows": {"read": 600, "duplicates": 3}, "notes": ["a", "b"], "name": ATTACK}},
        "train": {
            "train.json": {"steps": 3, "effective_epochs": 0.6, "quantization": "none", "tokens": {"answer": 900}}
        },
        "evaluate": {"measures.json": findings.measures.model_dump(mode="json")},
    }
    degradations = {"train": (MASKED_KERNEL,)}
    manifests: dict[str, Manifest] = {}
    for stage in STAGES[:4]:
        folder = scratch / stage.name
        folder.mkdir(parents=True)
        for name, content in files[stage.name].items():
            (folder / name).write_text(json.dumps(content), encoding="utf-8")
        if stage.name == "train":
            write_rows(folder / "training_metrics.jsonl", make_training_rows())
        if stage.name == "evaluate":
            _write_evaluation(folder, findings)
        manifest = Manifest(
            stage=stage.name,
            fingerprint=plan.stages[stage.name].fingerprint,
            payload={},
            run_id=plan.run_id,
            files=list_files(folder),
            inputs={
                entry.stage: InputEntry(key=manifests[entry.stage].key, manifest_sha256=manifests[entry.stage].digest())
                for entry in stage.inputs
            },
            summary={"base_activations": BASE_ACTIVATIONS} if stage.name == "evaluate" else {},
            degradations=degradations.get(stage.name, ()),
            provenance={
                "commit": "c0ffee" * 6 + "abcd",
                "dirty": True,
                "image_digest": "sha256:" + "1f" * 32,
                "argv": ["python", "-m", f"jobs.{stage.name}", "--config", "tiny"],
                "packages": {"numpy": "2.4.6", "torch": "2.13.0" if stage.name != "train" else "2.12.0"},
                "machine": {"python": "3.11.2", "os": "Linux", "machine": "x86_64", "cpus": 2, "gpus": []},
                "started": "2026-01-01T10:00:00.000+00:00",
                "ended": "2026-01-01T10:01:12.500+00:00",
                "attempt": 1,
                **({} if stage.name == "environment" else SPENT),
            },
        )
        store.publish(folder, manifest)
        manifests[stage.name] = manifest
    return manifests


def make_training_rows() -> list[dict[str, Any]]:
    rows = [
        {
            "split": "train",
            "step": step,
            "epoch": step / 5,
            "loss": 2.0 / step + 0.3,
            "learning_rate": 1e-3,
            "grad_norm": 1.0,
            "tokens_per_second": 800.0,
        }
        for step in (1, 2, 3)
    ]
    last = {**rows[-1], "split": "validation", "loss": 1.1, "learning_rate": None, "grad_norm": None}
    return [*rows, {**last, "tokens_per_second": None}]


def _write_evaluation(folder: Path, findings: Findings) -> None:
    write_rows(folder / "responses.jsonl", findings.responses)
    n = findings.measures.n_safe + findings.measures.n_unsafe
    labels = ["safe" if number % 2 else "unsafe" for number in range(n)]
    write_rows(
        folder / "prompts.jsonl",
        [
            {
                "prompt_id": f"row-{i:06d}",
                "axiom": "Civility & Tolerance" if i < 6 else "Justice & Rights",
                "safety_label": label,
                "source_dataset": "s",
                "text": f"How do I thank my neighbour {i}?" if i != 1 else f"Say {ATTACK}",
                "scored": True,
            }
            for i, label in enumerate(labels)
        ],
    )
    random = np.random.default_rng(7)
    side = np.asarray([label == "unsafe" for label in labels], dtype=np.float64)
    base = random.normal(size=(n, findings.width))
    base[:, 0] += 4 * side
    tuned = base + random.normal(scale=0.3, size=base.shape)
    save_file(
        {"base": base.astype(np.float32), "tuned": tuned.astype(np.float32)},
        folder / "embeddings.safetensors",
        {"n": "1"},
    )


def make_context(
    folder: Path,
    *,
    measures: Measures | None = None,
    overrides: tuple[str, ...] = (),
    responses: Any = None,
    width: int = 8,
) -> Context:
    """A Context over a real directory store and a real SQLite database below `folder`."""
    config = load_config("tiny", [f"runtime.output_dir={folder / 'output'}", *overrides])
    plan = plan_run(config, run_id="made-by-hand")
    store = DirectoryStore(folder / "artifacts")
    database = Database(f"sqlite:///{folder / 'results.db'}", connect_timeout_s=5)
    database.migrate()
    findings = Findings(measures or make_measures(), make_responses() if responses is None else responses, width)
    manifests = publish_findings(store, plan, folder / "scratch", findings)
    for name in ("work", "files"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    place = Workplace(config, store, database, folder / "output")
    return made_stages.make_context(place, plan, "analyze", folder / "work", files=folder / "files", inputs=manifests)
