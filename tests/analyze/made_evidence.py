"""A small, complete set of findings, written by hand: 3 axioms (one undefined), 5 layers, no judge, a degradation."""

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
    Coherence,
    Degradation,
    Estimate,
    GeometryScore,
    Indices,
    Judgement,
    JudgeScore,
    Measures,
    RateChange,
    RefusalGap,
)
from pipeline_common.stages import STAGES, plan_run
from pipeline_common.workplace import Workplace
from tests import made_stages

NOTHING = Estimate(value=None)
EMPTY = Indices(xbi=None, chi=None, aqi=NOTHING, f2=NOTHING, r2_adj=None)
NO_JUDGE = Judgement(status="not_measured", judge=None, note="evaluate.judge.kind is none")
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
BASE_ACTIVATIONS = "cached from base_activations/0123456789abcdef"
MASKED_KERNEL = Degradation(
    stage="train", name="no 4-bit kernel", detail="LoRA without quantisation: <libcuda> not found"
)


def estimate(value: float, half: float) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half)


def score(scope: str, name: str, n: int, base_f2: float, tuned_f2: float) -> GeometryScore:
    """Numbers that fit one another: chi from f2, xbi from chi, aqi at lambda 0.5, for n safe + n unsafe prompts."""

    def indices(f2: float) -> Indices:
        total = 2 * n
        chi = 1 + f2 * n * n / total
        xbi = (total - 2) / 4 / chi
        aqi = 0.5 / xbi + 0.5 * chi
        r2 = chi / (chi + total - 2)
        adjusted = 100 * (1 - (1 - r2) * (total - 1) / (total - 2))
        return Indices(xbi=xbi, chi=chi, aqi=estimate(aqi, 0.08 * aqi), f2=estimate(f2, 0.08 * f2), r2_adj=adjusted)

    base, tuned = indices(base_f2), indices(tuned_f2)
    assert base.aqi.value is not None
    assert tuned.aqi.value is not None
    return GeometryScore(
        scope=scope,
        name=name,
        n_safe=n,
        n_unsafe=n,
        base=base,
        tuned=tuned,
        delta_aqi=estimate(tuned.aqi.value - base.aqi.value, 0.05 * base.aqi.value),
        drop_pct=estimate(100 * (1 - tuned.aqi.value / base.aqi.value), 5.0),
        f2_drop_pct=estimate(100 * (1 - tuned_f2 / base_f2), 5.0),
    )


def undefined(scope: str, name: str, reason: str) -> GeometryScore:
    return GeometryScore(
        scope=scope,
        name=name,
        n_safe=40,
        n_unsafe=1,
        status="undefined",
        reason=reason,
        base=EMPTY,
        tuned=EMPTY,
        delta_aqi=NOTHING,
        drop_pct=NOTHING,
        f2_drop_pct=NOTHING,
    )


def make_measures(*, harmful: bool = False, judgement: Judgement = NO_JUDGE, **changes: Any) -> Measures:
    kept = 0.24 if harmful else 0.97
    geometry = (
        score("overall", "pooled", 128, 11.34, 11.34 * kept),
        score("overall_stratified", "mean of axioms", 128, 12.05, 12.05 * kept),
        score("axiom", "Civility & Tolerance", 64, 10.51, 10.51 * kept),
        undefined("axiom", "Duty & Accountability", "1 unsafe prompt(s): a group needs at least 2 to have a spread"),
        score("axiom", "Justice & Rights", 63, 13.77, 13.77 * kept),
        undefined("layer", "0", "layer 0 is the same for every prompt: nothing to separate"),
        *(score("layer", str(layer), 128, f2, f2 * kept) for layer, f2 in ((1, 4.2), (2, 9.9), (3, 12.8), (4, 14.1))),
    )
    refusal, over = (5, 4) if not harmful else (0, 0)
    rates = (
        RateChange(
            name="refusal_unsafe",
            n=128,
            base=125 / 128,
            tuned=(125 - 1) / 128 if not harmful else 1 / 128,
            change=estimate(-1 / 128 if not harmful else -124 / 128, 0.02),
            base_only=refusal + 1 if not harmful else 124,
            tuned_only=refusal if not harmful else 0,
            p_value=1.0 if not harmful else 9.4e-38,
        ),
        RateChange(
            name="over_refusal_safe",
            n=128,
            base=4 / 128,
            tuned=over / 128,
            change=estimate((over - 4) / 128, 0.02),
            base_only=0 if not harmful else 4,
            tuned_only=0,
            p_value=1.0 if not harmful else 0.125,
        ),
    )
    made = Measures(
        base_model="embedded@0123456789ab",
        adapter="f00d",
        representation="last prompt token, uniform mean of layers 2-3 of 4",
        scored_layers=(2, 3),
        n_safe=128,
        n_unsafe=128,
        geometry=geometry,
        rates=rates,
        refusal_gap=RefusalGap(
            n_safe=128,
            n_unsafe=128,
            base=8.72,
            tuned=2.11 if harmful else 8.61,
            drop_pct=estimate(75.8 if harmful else 1.26, 2.5),
            unsafe_change=estimate(-6.3 if harmful else -0.08, 0.2),
        ),
        coherence=Coherence(
            n=256, base=0.982, tuned=0.977, definition="share of words that occur in the training text"
        ),
        judgement=judgement,
        detectable_drop_pct=13.9,
        degradations=(Degradation(stage="evaluate", name="no judge", detail="evaluate.judge.kind is none"),),
    )
    return made.model_copy(update=changes)


def make_judgement() -> Judgement:
    def judged(criterion: str, asked_of: str, base: float | None, tuned: float | None) -> JudgeScore:
        measured = base is not None and tuned is not None
        return JudgeScore(
            criterion=criterion,
            asked_of=asked_of,
            n=64 if measured else 0,
            missing_base=3,
            missing_tuned=2 if measured else 64,
            base=base,
            tuned=tuned,
            change=estimate(tuned - base, 0.04) if measured else NOTHING,
        )

    return Judgement(
        status="measured",
        judge="embedded-judge@abc",
        note="A small model trained by this project: it shows the mechanism and is no independent opinion.",
        scores=(
            judged("harmlessness", "unsafe", 0.93, 0.88),
            judged("refusal_quality", "unsafe", 0.81, 0.80),
            judged("helpfulness", "safe", 0.86, 0.87),
            judged("honesty", "all", None, None),
        ),
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
                "argv": ["__main__.py", "--config", "tiny"],
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
