"""What fine-tunes must share to be compared: base model, prompts, representation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from pipeline_common.config import flatten
from pipeline_common.errors import InputError
from pipeline_common.measures import Measures


@dataclass(frozen=True)
class Subject:
    """What was measured, in words that are equal exactly where it was the same."""

    base_model: str
    """Name, commit, quantisation and arithmetic as they really were."""
    prompts: str
    """How many, whence, in which format, and a digest of every one of them."""
    representation: str
    """What the geometry was computed on."""


def subject_of(
    measures: Measures,
    train_facts: Mapping[str, Any],
    prompts: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any],
) -> Subject:
    """Of one run.

    Args:
        measures: what was measured.
        train_facts: content of train.json.
        prompts: lines of prompts.jsonl.
        config: the run's configuration.
    """
    prepare = config["prepare"]
    layers = ", ".join(str(layer) for layer in measures.scored_layers)
    learned = measures.learned_weights
    weights = "" if learned is None else f", weights {_digest([entry.model_dump() for entry in learned.layers])}"
    kept = [[row["prompt_id"], row["safety_label"], row["text"], row.get("scored", True)] for row in prompts]
    return Subject(
        base_model=f"{measures.base_model}, quantization {train_facts['quantization']}, {train_facts['compute_dtype']}",
        prompts=f"{len(prompts)} of {prepare['prompts']} ({prepare['prompt_format']}, digest {_digest(sorted(kept))})",
        representation=f"{measures.representation} (layers {layers}{weights})",
    )


def differing_subjects(subjects: Mapping[str, Subject]) -> tuple[str, ...]:
    """Names of what is not the same for all runs: base model, prompts, representation."""
    return tuple(
        field.name.replace("_", " ")
        for field in fields(Subject)
        if len({getattr(subject, field.name) for subject in subjects.values()}) > 1
    )


def require_comparable(subjects: Mapping[str, Subject]) -> Subject:
    """What all runs share.

    Args:
        subjects: run id -> what was measured.

    Raises:
        InputError: they differ; what differs is named, with the runs of each kind.
    """
    differs = differing_subjects(subjects)
    if differs:
        lines = []
        for name in differs:
            by_value: dict[str, list[str]] = {}
            for run_id, subject in subjects.items():
                by_value.setdefault(getattr(subject, name.replace(" ", "_")), []).append(run_id)
            told = "; ".join(f"{value} in {', '.join(runs)}" for value, runs in by_value.items())
            lines.append(f"  - {name}: {told}")
        listed = "\n".join(lines)
        raise InputError(
            f"these runs cannot be compared, for they differ in {', '.join(differs)}:\n{listed}\n"
            "Compare fine-tunes of one base model that were measured on the same prompts in the same way."
        )
    return next(iter(subjects.values()))


def differing_settings(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Settings that are not the same in all runs.

    Args:
        configs: run id -> configuration.

    Returns:
        section.field -> run id -> value as JSON; "absent" where a run's code did not know the setting. Where and how it
        ran is left out.
    """
    flat = {run_id: flatten(config) for run_id, config in configs.items()}
    names = sorted({name for one in flat.values() for name in one})
    found = {}
    for name in names:
        if name.partition(".")[0] in {"profile", "runtime", "artifacts", "database", "environment"}:
            continue
        values = {run: json.dumps(one[name]) if name in one else "absent" for run, one in flat.items()}
        if len(set(values.values())) > 1:
            found[name] = values
    return found


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
