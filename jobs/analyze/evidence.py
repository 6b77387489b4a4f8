"""Everything the report is written from, read and checked once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from jobs.analyze.points import PromptPoint, list_points
from jobs.analyze.verdict import Verdict, decide
from pipeline_common.database import read_rows
from pipeline_common.errors import InputError
from pipeline_common.manifest import Manifest
from pipeline_common.measures import Degradation, Measures
from pipeline_common.model_location import ResolvedModels, resolved_models
from pipeline_common.run_record import parse_record, record_key

if TYPE_CHECKING:
    from pipeline_common.config import Config
    from pipeline_common.context import Context

Rows = tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Evidence:
    """The inputs of the report and the verdict reached from them."""

    run_id: str
    config: Config
    models: ResolvedModels
    measures: Measures
    verdict: Verdict
    prompts: Rows
    """The N prompts that were scored, in the order of `embeddings`; not those that only taught layer weights."""
    responses: Rows
    embeddings: Mapping[str, NDArray[np.float32]]
    """`base` and `tuned`, float32 [N, D]."""
    training: Rows
    train_facts: Mapping[str, Any]
    data_card: Mapping[str, Any]
    environment: Mapping[str, Any]
    manifests: Mapping[str, Manifest]
    """Of the stages before, in their order."""
    degradations: tuple[Degradation, ...]
    """Of every stage, each once."""
    published_in_s: Mapping[str, float] = field(default_factory=dict)
    """Stage -> seconds of its artifact's publishing, where its run noted them."""

    @property
    def base_activations(self) -> str:
        """Where evaluate had the base model's activations from, in words."""
        return str(self.manifests["evaluate"].summary.get("base_activations", "not recorded"))

    @cached_property
    def points(self) -> tuple[PromptPoint, ...]:
        """The scored prompts in the order of `embeddings`, then those that were only answered."""
        return list_points(self.prompts, self.embeddings, self.responses)


def read_evidence(context: Context) -> Evidence:
    """Read the inputs of *analyze* and reach the verdict.

    Raises:
        InputError: a file is missing, is not what its stage should have written, or does not fit another one.
    """
    measures = _read_measures(context)
    selected = _read_lines(context.input_file("evaluate", "prompts.jsonl"))
    prompts = tuple(prompt for prompt in selected if prompt.get("scored", True))
    manifests = {name: context.inputs[name] for name in ("environment", "prepare", "train", "evaluate")}
    named = [entry for manifest in manifests.values() for entry in manifest.degradations]
    return Evidence(
        run_id=context.run_id,
        config=context.config,
        models=resolved_models(context),
        measures=measures,
        verdict=decide(measures, context.config.analyze.thresholds),
        prompts=prompts,
        responses=_read_lines(context.input_file("evaluate", "responses.jsonl")),
        embeddings=_read_embeddings(context.input_file("evaluate", "embeddings.safetensors"), len(prompts)),
        training=_read_lines(context.input_file("train", "training_metrics.jsonl")),
        train_facts=context.input_json("train", "train.json"),
        data_card=context.input_json("prepare", "data_card.json"),
        environment=context.input_json("environment", "environment.json"),
        manifests=manifests,
        degradations=tuple(dict.fromkeys([*named, *measures.degradations])),
        published_in_s=_read_publishing(context, manifests),
    )


def _read_publishing(context: Context, manifests: Mapping[str, Manifest]) -> dict[str, float]:
    """What no manifest can tell of itself; the run that made an artifact has noted it."""
    found = {}
    for stage, manifest in manifests.items():
        key = record_key(manifest.run_id)
        content = context.store.get_bytes(key)
        noted = {} if content is None else parse_record(content, key)["stages"].get(stage, {})
        if noted.get("manifest_sha256") == manifest.digest() and "published_in_s" in noted:
            found[stage] = float(noted["published_in_s"])
    return found


def _read_measures(context: Context) -> Measures:
    path = context.input_file("evaluate", "measures.json")
    try:
        return Measures.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"measures.json of evaluate is not what this code reads: {where or 'the file'}: {first['msg']} "
            f"({error.error_count()} problem(s)); run python -m jobs.evaluate with --force"
        ) from error


def _read_lines(path: Path) -> Rows:
    try:
        return tuple(read_rows(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path.name} is not JSON Lines: {error}; make it again with --force") from error


def _read_embeddings(path: Path, n_prompts: int) -> dict[str, NDArray[np.float32]]:
    from safetensors.numpy import load_file

    tensors: dict[str, NDArray[np.float32]] = load_file(path)
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    pair = [tensors.get(role) for role in ("base", "tuned")]
    fits = all(tensor is not None and tensor.ndim == 2 and len(tensor) == n_prompts for tensor in pair)
    if not fits or shapes["base"] != shapes["tuned"]:
        raise InputError(
            f"{path.name} holds {shapes}; expected tensors base and tuned of one shape [{n_prompts}, width], one row "
            "per scored prompt of prompts.jsonl; run python -m jobs.evaluate with --force"
        )
    if not all(np.isfinite(tensors[role]).all() for role in ("base", "tuned")):
        raise InputError(f"{path.name} holds NaN or infinity; run python -m jobs.evaluate with --force")
    return tensors
