"""What machines read: `summary.json` and the rows of `evaluation_summary`."""

from __future__ import annotations

from typing import Any, Final

from jobs.analyze.controls import control_rows, list_controls
from jobs.analyze.evidence import Evidence
from jobs.analyze.signals import Signal, find_overall
from pipeline_common.run_summary import RunSummary

SCHEMA_VERSION: Final = 1
BASE_UNITS: Final = {
    "coherence": "share",
    "refusal_unsafe": "%",
    "over_refusal_safe": "%",
    "refusal_gap": "nats",
    "geometry": "f2",
}
"""Unit of a signal's `base` and `tuned` where it is not the unit of its change."""


def build_summary(evidence: Evidence) -> dict[str, Any]:
    """Verdict, signals, headline measures and facts of the run, as JSON that its published schema describes."""
    measures, verdict = evidence.measures, evidence.verdict
    overall = find_overall(measures)
    content = {
        "schema_version": SCHEMA_VERSION,
        "run_id": evidence.run_id,
        "profile": evidence.config.profile,
        "verdict": verdict.label,
        "headline": verdict.headline,
        "conditions": list(verdict.conditions),
        "path": list(verdict.path),
        "sentences": list(verdict.sentences),
        "recommendation": verdict.recommendation,
        "signals": [{**signal.model_dump(mode="json"), "base_unit": base_unit(signal)} for signal in verdict.signals],
        "controls": list(list_controls(measures, evidence.config.analyze.thresholds)),
        "thresholds": evidence.config.analyze.thresholds.model_dump(mode="json"),
        "measures": {
            "representation": measures.representation,
            "n_safe": measures.n_safe,
            "n_unsafe": measures.n_unsafe,
            "overall": None if overall is None else overall.model_dump(mode="json"),
            "undefined": [
                {"scope": score.scope, "name": score.name, "reason": score.reason}
                for score in measures.geometry
                if score.status == "undefined"
            ],
            "detectable_drop_pct": measures.detectable_drop_pct,
        },
        "degradations": [entry.model_dump(mode="json") for entry in evidence.degradations],
        "run": {
            "base_model": evidence.models.base.title,
            "judge": evidence.measures.judgement.judge,
            "dataset": evidence.config.prepare.dataset,
            "prompts": evidence.config.prepare.prompts,
            "artifacts": {
                name: {"key": manifest.key, "manifest_sha256": manifest.digest()}
                for name, manifest in evidence.manifests.items()
            },
        },
    }
    return RunSummary.model_validate(content).model_dump(mode="json")


def build_rows(evidence: Evidence) -> list[dict[str, Any]]:
    """Rows of `evaluation_summary`: the verdict, then one per signal, then one per control."""
    verdict, thresholds = evidence.verdict, evidence.config.analyze.thresholds
    first = {
        "name": "verdict",
        "status": verdict.label,
        "base": None,
        "tuned": None,
        "value": None,
        "value_low": None,
        "value_high": None,
        "unit": None,
        "interpretation": f"{verdict.headline} {verdict.recommendation}",
        "details": {
            "conditions": list(verdict.conditions),
            "path": list(verdict.path),
            "thresholds": thresholds.model_dump(mode="json"),
        },
    }
    signals = [_signal_row(signal) for signal in verdict.signals]
    return [first, *signals, *control_rows(evidence.measures, thresholds)]


def base_unit(signal: Signal) -> str:
    """Unit of a signal's `base` and `tuned`."""
    return BASE_UNITS.get(signal.name, signal.unit)


def _signal_row(signal: Signal) -> dict[str, Any]:
    low, high = signal.interval or (None, None)
    return {
        "name": signal.name,
        "status": signal.status,
        "base": signal.base,
        "tuned": signal.tuned,
        "value": signal.value,
        "value_low": low,
        "value_high": high,
        "unit": signal.unit,
        "interpretation": signal.sentence,
        "details": {"threshold": signal.threshold, "decisive": signal.decisive, "base_unit": base_unit(signal)},
    }
