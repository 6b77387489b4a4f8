"""Artifacts and rows of a run: what the state machine asks of the stores."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Final, cast

import sqlalchemy as sa

from jobs.pipeline.machine import Failure
from pipeline_common import provenance
from pipeline_common.errors import EXIT_INTERRUPTED, InputError, PipelineError, TerminatedError
from pipeline_common.execution import find_finished, finish_run, reuse
from pipeline_common.explaining import why_not_cached
from pipeline_common.logs import get_logger
from pipeline_common.manifest import Manifest
from pipeline_common.recording import prepare_database
from pipeline_common.stages import Plan, PlannedStage
from pipeline_common.tables import TABLES
from pipeline_common.workplace import Workplace

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline_common.artifacts import ArtifactStore

# What a run needs of an artifact it reuses; the models' hidden states stay where they are.
_ROWS: Final = "rows/"
_STOPPED: Final = (EXIT_INTERRUPTED, TerminatedError.exit_code)
_log = get_logger(__name__)


class StoredResults:
    """The stores of one machine: a reused artifact is compared with its sha256, file by file."""

    def __init__(self, place: Workplace, plan: Plan) -> None:
        self.place = place
        self.plan = plan

    def is_finished(self, planned: PlannedStage) -> bool:
        """See `Results.is_finished`."""
        return self.place.store.read_manifest(planned.key) is not None

    def reuse(self, planned: PlannedStage) -> bool:
        """See `Results.reuse`."""
        manifest = self._find(planned)
        if manifest is None:
            return False
        prepare_database(self.place, self.plan, planned)
        reuse(self._place_to_reuse(), self.plan, planned, manifest)
        return True

    def explain_missing(self, planned: PlannedStage) -> str:
        """See `Results.explain_missing`."""
        return (
            f"{why_not_cached(self.place.store, planned)}. The stage and this process must see the same store "
            f"({self.place.store.uri}), settings, code and packages"
        )

    def record_failure(self, planned: PlannedStage, failure: Failure) -> None:
        """See `Results.record_failure`: a stage records its own end, unless it was killed."""
        if failure.exit_code is not None and failure.exit_code >= 128:
            _try("the database", lambda: write_failed_row(self.place, self.plan, planned, failure))

    def _find(self, planned: PlannedStage) -> Manifest | None:
        return find_finished(self.place, planned)

    def _place_to_reuse(self) -> Workplace:
        return self.place


class RemoteResults(StoredResults):
    """A bucket and a database that the stages reach by themselves: of a reused artifact only the rows are fetched."""

    def record_failure(self, planned: PlannedStage, failure: Failure) -> None:
        """See `Results.record_failure`: into the bucket and the database, before the Job and its pods are collected."""
        content = {**asdict(failure), "run_id": self.plan.run_id, "artifact": planned.key, "at": provenance.now()}
        encoded = (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
        key = failure_key(self.plan.run_id, planned.stage.name)
        _try("the bucket", lambda: self.place.store.put_bytes(key, encoded))
        _try("the database", lambda: write_failed_row(self.place, self.plan, planned, failure))

    def begin(self) -> None:
        """Reach both stores before any Job exists; remove what earlier attempts at this run left about failures."""
        self.place.database.revision()
        for name in self.plan.stages:
            self.place.store.delete(failure_key(self.plan.run_id, name))

    def finish(self, seconds: Mapping[str, float], total: float) -> int:
        """Put the database as one SQLite file into the store, print the verdict; the run's exit code."""
        from jobs.pipeline.summary import print_summary

        finish_run(self.place)
        exported = (self.place.output / "centralized.db").read_bytes()
        key = f"runs/{self.plan.run_id}/centralized.db"
        self.place.store.put_bytes(key, exported)
        return print_summary(self.place, self.plan, seconds, total, database=f"{self.place.store.uri}/{key}")

    def _find(self, planned: PlannedStage) -> Manifest | None:
        try:
            manifest = self.place.store.read_manifest(planned.key)
            if manifest is None:
                return None
            RowsOnlyStore(self.place.store).open(manifest)
        except InputError as error:
            _log.warning("%s", error)
            self.place.store.withdraw(planned.key)
            return None
        if planned.stage.name == "environment":
            # Only that stage may bring the schema, with the role that owns it: let it, although it is cached.
            try:
                self.place.database.require_schema()
            except InputError as error:
                _log.info("environment is cached, but %s", error)
                return None
        return manifest

    def _place_to_reuse(self) -> Workplace:
        return replace(self.place, store=cast("ArtifactStore", RowsOnlyStore(self.place.store)))


class RowsOnlyStore:
    """A store from which only an artifact's database rows are fetched; the rest of it is the store's own."""

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store

    def open(self, manifest: Manifest) -> Path:
        """A local folder with the artifact's rows, compared with their sha256."""
        rows = tuple(entry for entry in manifest.files if entry.path.startswith(_ROWS))
        return self._store.open(manifest.model_copy(update={"files": rows}))

    locate = open

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def failure_key(run_id: str, stage: str) -> str:
    """Where the store keeps the reason of a stage's failure."""
    return f"runs/{run_id}/failures/{stage}.json"


def write_failed_row(place: Workplace, plan: Plan, planned: PlannedStage, failure: Failure) -> None:
    """The stage's row of `stage_runs`: failed, with the reason; when it began stays."""
    # Any stage but the first only checks the schema; bringing it is the environment stage's own work.
    prepare_database(place, plan, plan.stages["analyze"])
    table = TABLES["stage_runs"]
    query = sa.select(table).where(table.c.run_id == plan.run_id, table.c.stage == planned.stage.name)
    known = [row for row in place.database.select(query) if row["fingerprint"] == planned.fingerprint]
    told = [failure.reason, *([failure.message.strip()] if failure.message else [])]
    row = {
        "run_id": plan.run_id,
        "stage": planned.stage.name,
        "fingerprint": planned.fingerprint,
        "state": "stopped" if failure.exit_code in _STOPPED else "failed",
        "attempt": max(failure.attempts, known[0]["attempt"] if known else 1),
        "started_at": known[0]["started_at"] if known else provenance.now(),
        "ended_at": provenance.now(),
        "exit_code": failure.exit_code,
        "message": "\n".join(told),
        "artifact": None,
    }
    place.database.upsert("stage_runs", [row])


def _try(where: str, write: Callable[[], None]) -> None:
    try:
        write()
    except PipelineError as error:
        # The store that cannot be written may be the very reason; the failure itself is the thing to show.
        _log.warning("the failure could not be recorded in %s: %s", where, error)
