"""What may go: what lies in the store, less everything that a run refers to.

A run is one that the results database or a record in the store (`runs/<run_id>/run.json`) tells of; either suffices to
keep what it refers to, so the wrong database removes nothing. It refers to the artifact of every stage it began,
finished or not, to what those were made from, and to the models and base activations that it made or read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import sqlalchemy as sa

from pipeline_common.database.lock import try_stage
from pipeline_common.errors import InputError
from pipeline_common.manifest import MANIFEST_NAME, Manifest
from pipeline_common.model_location import MODELS_FILE, ResolvedModels
from pipeline_common.run_record import parse_record
from pipeline_common.stages import STAGE_NAMES
from pipeline_common.tables import TABLES
from pipeline_common.workplace import Workplace

CHECKPOINTS: Final = "checkpoints"
PROBES: Final = "probes"
RUNS: Final = "runs"
SHARED: Final = ("base_model", "judge_model", "base_activations")
"""Artifacts that are no stage's: known by the run that made them, or by what names them."""


@dataclass(frozen=True)
class Folder:
    """One artifact, finished or not, or one training's checkpoints."""

    key: str
    size: int
    """Bytes."""
    written: datetime
    """Its newest file, UTC."""
    finished: bool


@dataclass(frozen=True)
class Run:
    """A run that somebody tells of."""

    run_id: str
    begun: datetime | None
    """None = only the store knows it."""
    keys: frozenset[str]
    """Artifacts of its stages, as the database and the store name them."""


@dataclass(frozen=True)
class Pruning:
    """What goes and what stays."""

    forgotten: tuple[Run, ...]
    removed: tuple[tuple[Folder, str], ...]
    """Each with the reason."""
    kept: tuple[Folder, ...]
    spared: tuple[str, ...]
    """Runs that were asked for and stay, with the reason."""


def plan_pruning(place: Workplace, named: Sequence[str], older_than: float | None, keep_days: float) -> Pruning:
    """Look, change nothing.

    Args:
        place: the stores.
        named: runs to forget.
        older_than: forget runs begun more than so many days ago; None = none.
        keep_days: what was written in the last so many days stays.

    Raises:
        InputError: no results database, an unknown run, or one that is running.
    """
    now = datetime.now(UTC)
    runs = find_runs(place)
    unknown = sorted(set(named) - runs.keys())
    if unknown:
        raise InputError(f"no run is called {', '.join(unknown)}; `make status` lists the newest")
    forgotten, spared = _choose_runs(place, runs, named, None if older_than is None else now - timedelta(older_than))
    gone = {run.run_id for run in forgotten}
    referred = find_references(place, [run for run_id, run in runs.items() if run_id not in gone])
    since = now - timedelta(keep_days)
    removed, kept = [], []
    for folder in list_folders(place):
        if folder.key in referred or folder.written > since:
            kept.append(folder)
        else:
            removed.append((folder, "no run refers to it" if folder.finished else "unfinished, and no run tells of it"))
    return Pruning(tuple(forgotten), tuple(removed), tuple(kept), tuple(spared))


def find_runs(place: Workplace) -> dict[str, Run]:
    """Every run that the database or the store tells of.

    Raises:
        InputError: there is no results database, newer code made it, or a run's record is damaged.
    """
    if place.database.revision() is None:
        raise InputError(
            f"there is no results database at {place.database.shown_url}, and what runs refer to stands there: name it "
            "with DATABASE_URL, or with the runtime.output_dir of the runs"
        )
    # What newer code refers to, this code does not know.
    place.database.require_schema()
    stages, experiments = TABLES["stage_runs"], TABLES["experiments"]
    begun: dict[str, datetime] = {
        row["run_id"]: row["created_at"]
        for row in place.database.select(sa.select(experiments.c.run_id, experiments.c.created_at))
    }
    keys: dict[str, set[str]] = {run_id: set() for run_id in begun}
    for row in place.database.select(sa.select(stages.c.run_id, stages.c.stage, stages.c.fingerprint)):
        keys[row["run_id"]].add(f"{row['stage']}/{row['fingerprint']}")
    for path, _, _ in place.store.list_objects(RUNS):
        run_id, _, name = path.removeprefix(f"{RUNS}/").partition("/")
        found = keys.setdefault(run_id, set())
        content = place.store.get_bytes(path) if name == "run.json" else None
        if content is not None:
            found |= {stage["artifact"] for stage in parse_record(content, path)["stages"].values()}
    return {run_id: Run(run_id, begun.get(run_id), frozenset(found)) for run_id, found in keys.items()}


def find_references(place: Workplace, runs: Iterable[Run]) -> set[str]:
    """Keys of everything these runs refer to."""
    runs = list(runs)
    names = {run.run_id for run in runs}
    referred: set[str] = set()
    waiting = {key for run in runs for key in run.keys}
    while waiting:
        key = waiting.pop()
        referred.add(key)
        # Of a training that is not finished; of a finished one there are none.
        referred.add(f"{CHECKPOINTS}/{key}")
        manifest = place.store.read_manifest(key)
        if manifest is not None:
            waiting |= _named_by(place, manifest) - referred
    for area in SHARED:
        for key in place.store.list_keys(area):
            manifest = place.store.read_manifest(key)
            if manifest is not None and manifest.run_id in names:
                referred.add(key)
    return referred


def list_folders(place: Workplace) -> list[Folder]:
    """Everything in the store but the runs' own records, by key."""
    found: dict[str, list[tuple[str, int, datetime]]] = {}
    for area in (*STAGE_NAMES, *SHARED, CHECKPOINTS, PROBES):
        for path, size, written in place.store.list_objects(area):
            depth = 3 if area == CHECKPOINTS else 2
            found.setdefault("/".join(path.split("/")[:depth]), []).append((path, size, written))
    return [
        Folder(
            key,
            sum(size for _, size, _ in files),
            max(written for _, _, written in files),
            any(path == f"{key}/{MANIFEST_NAME}" for path, _, _ in files),
        )
        for key, files in sorted(found.items())
    ]


def _choose_runs(
    place: Workplace, runs: Mapping[str, Run], named: Sequence[str], before: datetime | None
) -> tuple[list[Run], list[str]]:
    """Runs to forget, and those that cannot be because they are running.

    Raises:
        InputError: a run that was named is running.
    """
    forgotten, spared = [], []
    for run_id, run in runs.items():
        old = before is not None and run.begun is not None and run.begun < before
        if run_id not in named and not old:
            continue
        working = find_working(place, run)
        if working is None:
            forgotten.append(run)
        elif run_id in named:
            raise InputError(f"run {run_id} is running ({working}); end it, or wait, and prune again")
        else:
            spared.append(f"{run_id}: running ({working})")
    return forgotten, spared


def find_working(place: Workplace, run: Run) -> str | None:
    """The stage of a run, or of an artifact it uses, that a process is working on; None = none."""
    for key in sorted(run.keys):
        stage = key.partition("/")[0]
        with try_stage(place.database, run.run_id, stage, key) as free:
            if not free:
                return stage
    return None


def _named_by(place: Workplace, manifest: Manifest) -> set[str]:
    """Keys of other artifacts that this one was made from, or that readers of it need."""
    named = {entry.key for entry in manifest.inputs.values()}
    # "cached from base_activations/<fingerprint>"; what it measured itself carries the run's name.
    words = str(manifest.summary.get("base_activations")).split()
    named |= {word for word in words if word.startswith("base_activations/")}
    if manifest.stage == "environment":
        wanted = tuple(entry for entry in manifest.files if entry.path == MODELS_FILE)
        if wanted:
            folder = place.store.open(manifest.model_copy(update={"files": wanted}))
            models = ResolvedModels.model_validate_json((folder / MODELS_FILE).read_bytes())
            named |= {model.artifact for model in (models.base, models.judge) if model and model.artifact}
    return named
