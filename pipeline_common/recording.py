"""What a run leaves beside its artifacts: its rows in the database, and which artifact each of its stages has."""

from __future__ import annotations

import json
import os
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from pipeline_common import provenance
from pipeline_common.database import read_rows
from pipeline_common.run_record import parse_record, record_key
from pipeline_common.tables import TABLES

if TYPE_CHECKING:
    from pipeline_common.manifest import Manifest
    from pipeline_common.stages import Plan, PlannedStage
    from pipeline_common.workplace import Workplace


def prepare_database(place: Workplace, plan: Plan, planned: PlannedStage) -> None:
    """Bring or check the schema, and make sure the run's experiment row exists."""
    if planned.stage.name == "environment":
        place.database.migrate()
    else:
        place.database.require_schema()
    config = place.config
    code = provenance.commit()
    row = {
        "run_id": plan.run_id,
        "profile": config.profile,
        "base_model": config.model.base,
        "dataset": config.prepare.dataset,
        "prompts": config.prepare.prompts,
        "code_commit": code["commit"],
        "code_dirty": code["dirty"],
        "config": config.model_dump(mode="json"),
    }
    experiments = TABLES["experiments"]
    query = sa.select(experiments.c.created_at).where(experiments.c.run_id == plan.run_id)
    known = place.database.select(query)
    created = known[0]["created_at"] if known else provenance.now()
    place.database.upsert("experiments", [{**row, "created_at": created}])


def is_recorded(place: Workplace, plan: Plan, planned: PlannedStage) -> bool:
    """Whether the run has the rows of this very artifact already."""
    table = TABLES["stage_runs"]
    query = sa.select(table.c.fingerprint).where(
        table.c.run_id == plan.run_id, table.c.stage == planned.stage.name, table.c.state.in_(("done", "cached"))
    )
    return [row["fingerprint"] for row in place.database.select(query)] == [planned.fingerprint]


def is_running(
    place: Workplace, plan: Plan, planned: PlannedStage, attempt: int, started: str, *, patient: bool = True
) -> bool:
    """Whether the stage's row still tells of this attempt, so that no other process has taken over."""
    table = TABLES["stage_runs"]
    query = sa.select(table).where(table.c.run_id == plan.run_id, table.c.stage == planned.stage.name)
    told = [(row["state"], row["attempt"], row["started_at"]) for row in place.database.select(query, patient=patient)]
    return told == [("running", attempt, datetime.fromisoformat(started))]


def record_state(
    place: Workplace,
    plan: Plan,
    planned: PlannedStage,
    state: str,
    attempt: int,
    *,
    started: str,
    ended: bool = False,
    exit_code: int | None = None,
    message: str | None = None,
    patient: bool = True,
) -> None:
    """Write where the stage stands into its row of `stage_runs`."""
    finished = state in {"done", "cached"}
    row = {
        "run_id": plan.run_id,
        "stage": planned.stage.name,
        "fingerprint": planned.fingerprint,
        "state": state,
        "attempt": attempt,
        "started_at": started,
        "ended_at": provenance.now() if ended else None,
        "exit_code": (exit_code or 0) if finished else exit_code,
        "message": message,
        "artifact": planned.key if finished else None,
    }
    place.database.upsert("stage_runs", [row], patient=patient)


def write_artifact_rows(place: Workplace, plan: Plan, folder: Path) -> None:
    """Replace this run's rows by the artifact's, in one transaction."""
    tables = {}
    for path in sorted((folder / "rows").glob("*.jsonl")):
        if path.stem == "experiments":
            # The row is there since the stage began; this adds what was found out since.
            for row in read_rows(path):
                place.database.update_run(path.stem, plan.run_id, row)
        else:
            tables[path.stem] = partial(read_rows, path)
    if tables:
        place.database.replace_run(plan.run_id, tables)


def remember_artifact(
    place: Workplace, plan: Plan, planned: PlannedStage, manifest: Manifest, *, published_in_s: float | None = None
) -> None:
    """Note the artifact in the run's record, and link `output/latest/<stage>` to it where it is a local folder.

    Args:
        place: the stores.
        plan: the run.
        planned: the stage.
        manifest: of the artifact.
        published_in_s: seconds of its publishing, which its own manifest cannot tell; None where this run found it.
    """
    key = record_key(plan.run_id)
    content = place.store.get_bytes(key)
    record: dict[str, Any] = {"run_id": plan.run_id, "profile": place.config.profile, "stages": {}}
    if content is not None:
        record = parse_record(content, key)
    noted: dict[str, Any] = {"artifact": planned.key, "manifest_sha256": manifest.digest()}
    before = record["stages"].get(planned.stage.name, {})
    if published_in_s is not None:
        noted["published_in_s"] = published_in_s
    elif before.get("manifest_sha256") == noted["manifest_sha256"] and "published_in_s" in before:
        noted["published_in_s"] = before["published_in_s"]
    record["stages"][planned.stage.name] = noted
    place.store.put_bytes(key, (json.dumps(record, indent=2, sort_keys=True) + "\n").encode())
    latest = place.output / "latest"
    latest.mkdir(exist_ok=True)
    partial = latest / f".{planned.stage.name}.{os.getpid()}"
    partial.unlink(missing_ok=True)
    partial.symlink_to(os.path.relpath(place.store.locate(manifest), latest))
    partial.replace(latest / planned.stage.name)
    for left in place.store.list_keys(f"checkpoints/{planned.key}"):
        place.store.withdraw(left)
