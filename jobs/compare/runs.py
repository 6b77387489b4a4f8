"""Finished runs, as the database and the artifact store tell of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from jobs.compare.agreement import Subject, differing_subjects, subject_of
from pipeline_common.database import read_rows
from pipeline_common.errors import InputError
from pipeline_common.logs import get_logger
from pipeline_common.manifest import Manifest
from pipeline_common.measures import Measures
from pipeline_common.run_record import parse_record, record_key
from pipeline_common.run_summary import RunSummary
from pipeline_common.stages import STAGE_NAMES
from pipeline_common.tables import TABLES
from pipeline_common.workplace import Workplace

Rows = tuple[Mapping[str, Any], ...]
# What is read of each stage's artifact; from a bucket, nothing else is fetched.
_FILES: Final[Mapping[str, tuple[str, ...]]] = {
    "train": ("train.json",),
    "evaluate": ("measures.json", "prompts.jsonl", "responses.jsonl", "embeddings.safetensors"),
    "analyze": ("summary.json",),
}
Record = TypeVar("Record", bound=BaseModel)
_log = get_logger(__name__)


@dataclass(frozen=True)
class FinishedRun:
    """One fine-tune, measured and judged."""

    run_id: str
    profile: str
    created_at: datetime
    config: Mapping[str, Any]
    """The whole configuration, as it was recorded."""
    train_facts: Mapping[str, Any]
    measures: Measures
    summary: RunSummary
    prompts: Rows
    responses: Rows
    embeddings: Mapping[str, NDArray[np.float32]]
    """`base` and `tuned` [N, D]: the scored prompts in the order of `prompts`."""
    artifacts: Mapping[str, str]
    """Stage -> key of its artifact."""
    manifest_digest: str
    """Of the analyze artifact: it names everything before it."""
    stage_seconds: Mapping[str, float]
    """What each stage took when its artifact was made."""

    @property
    def scored(self) -> Rows:
        """The prompts that the geometry was scored on."""
        return tuple(prompt for prompt in self.prompts if prompt.get("scored", True))

    @property
    def subject(self) -> Subject:
        """What must be the same for another run to be compared with this one."""
        return subject_of(self.measures, self.train_facts, self.prompts, self.config)


@dataclass(frozen=True)
class Chosen:
    """The runs to compare, and in words which others were left out and why."""

    runs: tuple[FinishedRun, ...]
    left_out: tuple[str, ...] = ()


def read_runs(place: Workplace, run_ids: Sequence[str]) -> Chosen:
    """The named runs.

    Raises:
        InputError: fewer than two different ones, one that is unknown or unfinished, or files that are not what their
            stage should have written.
    """
    wanted = tuple(dict.fromkeys(run_ids))
    if len(wanted) < 2:
        raise InputError(f"a comparison needs at least two runs, came {', '.join(wanted)}")
    known = _finished_runs(place)
    absent = [run_id for run_id in wanted if run_id not in known]
    if absent:
        raise InputError(
            f"{place.database.shown_url} holds no finished run called {', '.join(absent)}; finished are "
            f"{', '.join(known) or 'none'}"
        )
    return Chosen(tuple(_read_run(place, known[run_id]) for run_id in wanted))


def choose_runs(place: Workplace) -> Chosen:
    """All finished runs that can be compared with the newest one: same base, prompts and representation.

    Of runs that share an evaluation (the same fine-tune, measured the same way) only the newest is taken.

    Raises:
        InputError: fewer than two.
    """
    known = _finished_runs(place)
    if not known:
        raise InputError(f"{place.database.shown_url} holds no finished run yet; run the pipeline first (make run)")
    rows = list(known.values())
    newest = _read_run(place, rows[0])
    chosen, left_out, seen = [newest], [], {newest.artifacts["evaluate"]: newest.run_id}
    for row in rows[1:]:
        if row["base_model"] != rows[0]["base_model"]:
            continue
        run = _read_run(place, row)
        twin = seen.setdefault(run.artifacts["evaluate"], run.run_id)
        if twin != run.run_id:
            left_out.append(f"{run.run_id}: the same fine-tune and measurement as {twin}")
        elif differs := differing_subjects({newest.run_id: newest.subject, run.run_id: run.subject}):
            left_out.append(f"{run.run_id}: differs from {newest.run_id} in {', '.join(differs)}")
        else:
            chosen.append(run)
    for told in left_out:
        _log.info("left out %s", told)
    if len(chosen) < 2:
        others = f"; left out: {'; '.join(left_out)}" if left_out else ""
        raise InputError(
            f"only one finished run can be compared, {newest.run_id}{others}; make another fine-tune of "
            f"{rows[0]['base_model']}, for example make run PROFILE=tiny-harmful"
        )
    return Chosen(tuple(chosen), tuple(left_out))


def _finished_runs(place: Workplace) -> dict[str, dict[str, Any]]:
    """Run id -> row of `experiments`, the newest first, of runs whose every stage is done.

    Raises:
        InputError: no database, or one of another schema.
    """
    name = place.database.engine.url.database
    if place.database.embedded and not (name and Path(name).exists()):
        raise InputError(f"there is no database {place.database.shown_url} yet; run the pipeline first (make run)")
    place.database.require_schema()
    experiments, stage_runs = TABLES["experiments"], TABLES["stage_runs"]
    finished = (
        sa.select(stage_runs.c.run_id)
        .where(stage_runs.c.state.in_(("done", "cached")))
        .group_by(stage_runs.c.run_id)
        .having(sa.func.count() == len(STAGE_NAMES))
    )
    query = (
        sa.select(experiments)
        .where(experiments.c.run_id.in_(finished))
        .order_by(experiments.c.created_at.desc(), experiments.c.run_id)
    )
    return {row["run_id"]: dict(row) for row in place.database.select(query)}


def _read_run(place: Workplace, row: Mapping[str, Any]) -> FinishedRun:
    run_id = str(row["run_id"])
    key = record_key(run_id)
    content = place.store.get_bytes(key)
    if content is None:
        raise InputError(f"{place.store.uri} has no record of run {run_id}, though the database has; is it that store?")
    stages: dict[str, dict[str, str]] = parse_record(content, key)["stages"]
    absent = [name for name in STAGE_NAMES if name not in stages]
    if absent:
        raise InputError(f"the record of run {run_id} in {place.store.uri} names no {', '.join(absent)}; run it again")
    artifacts = {name: stages[name]["artifact"] for name in STAGE_NAMES}
    manifests = {name: _require_manifest(place, run_id, key) for name, key in artifacts.items()}
    folders = {name: _open_files(place, manifests[name], files) for name, files in _FILES.items()}
    prompts = tuple(read_rows(folders["evaluate"] / "prompts.jsonl"))
    run = FinishedRun(
        run_id=run_id,
        profile=str(row["profile"]),
        created_at=row["created_at"],
        config=row["config"],
        train_facts=json.loads((folders["train"] / "train.json").read_text(encoding="utf-8")),
        measures=_parse(Measures, folders["evaluate"] / "measures.json", run_id, "evaluate"),
        summary=_parse(RunSummary, folders["analyze"] / "summary.json", run_id, "analyze"),
        prompts=prompts,
        responses=tuple(read_rows(folders["evaluate"] / "responses.jsonl")),
        embeddings=_read_embeddings(folders["evaluate"] / "embeddings.safetensors", run_id),
        artifacts=artifacts,
        manifest_digest=manifests["analyze"].digest(),
        stage_seconds={name: seconds for name, manifest in manifests.items() if (seconds := _seconds(manifest))},
    )
    _require_fit(run)
    _require_same_verdict(place, run)
    return run


def _require_manifest(place: Workplace, run_id: str, key: str) -> Manifest:
    manifest = place.store.read_manifest(key)
    if manifest is None:
        raise InputError(f"run {run_id}: {key} is no longer in {place.store.uri}; run it again")
    return manifest


def _open_files(place: Workplace, manifest: Manifest, names: Iterable[str]) -> Path:
    """A folder with these files of an artifact, compared with their sha256."""
    wanted = set(names)
    files = tuple(entry for entry in manifest.files if entry.path in wanted)
    absent = sorted(wanted - {entry.path for entry in files})
    if absent:
        raise InputError(f"{manifest.key} holds no {', '.join(absent)}; make it again with --force")
    return place.store.open(manifest.model_copy(update={"files": files}))


def _parse(kind: type[Record], path: Path, run_id: str, stage: str) -> Record:
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(
            f"{path.name} of run {run_id} is not what this code reads: {where}: {first['msg']} "
            f"({error.error_count()} problem(s)); run {stage} of it again"
        ) from error


def _read_embeddings(path: Path, run_id: str) -> dict[str, NDArray[np.float32]]:
    from safetensors.numpy import load_file

    tensors: dict[str, NDArray[np.float32]] = load_file(path)
    if {"base", "tuned"} - tensors.keys() or not all(np.isfinite(tensors[role]).all() for role in ("base", "tuned")):
        raise InputError(f"{path.name} of run {run_id} lacks finite tensors base and tuned; run evaluate of it again")
    return tensors


def _require_fit(run: FinishedRun) -> None:
    n = len(run.scored)
    shapes = {role: run.embeddings[role].shape for role in ("base", "tuned")}
    if shapes["base"] != shapes["tuned"] or shapes["base"][0] != n:
        raise InputError(f"run {run.run_id}: embeddings {shapes} for {n} scored prompts; run evaluate of it again")


def _require_same_verdict(place: Workplace, run: FinishedRun) -> None:
    """The database and the artifact must tell of the same analysis."""
    table = TABLES["evaluation_summary"]
    query = sa.select(table.c.status).where(table.c.run_id == run.run_id, table.c.name == "verdict")
    told = [row["status"] for row in place.database.select(query)]
    if told != [run.summary.verdict]:
        raise InputError(
            f"run {run.run_id}: the verdict is {run.summary.verdict!r} in {run.artifacts['analyze']} and "
            f"{', '.join(map(repr, told)) or 'absent'} in {place.database.shown_url}; run it again"
        )


def _seconds(manifest: Manifest) -> float | None:
    started, ended = manifest.provenance.get("started"), manifest.provenance.get("ended")
    if not started or not ended:
        return None
    return (datetime.fromisoformat(ended) - datetime.fromisoformat(started)).total_seconds()
