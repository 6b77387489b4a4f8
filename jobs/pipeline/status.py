"""What the results say about runs: each run's stages, and of the settings given, what is cached and what would run."""

from __future__ import annotations

import sys
from typing import Any, Final

import sqlalchemy as sa

from pipeline_common.explaining import why_not_cached
from pipeline_common.stages import STAGE_NAMES, Plan
from pipeline_common.tables import TABLES
from pipeline_common.workplace import Workplace

_SHOWN_RUNS: Final = 5


def print_status(place: Workplace, plan: Plan) -> None:
    """Write both to stdout; changes nothing."""
    sys.stdout.write(f"Results in {place.store.uri} and {place.database.shown_url}:\n")
    runs = _newest_runs(place)
    for run_id, rows in runs.items():
        sys.stdout.write(f"  run {run_id}\n")
        for name in STAGE_NAMES:
            sys.stdout.write(f"    {name:<12} {_describe(rows.get(name))}\n")
    if not runs:
        sys.stdout.write("  no run yet\n")
    sys.stdout.write(f"With the settings given, run {plan.run_id}:\n")
    for name, planned in plan.stages.items():
        manifest = place.store.read_manifest(planned.key)
        told = f"cached as {planned.key}" if manifest else f"would run: {why_not_cached(place.store, planned)}"
        sys.stdout.write(f"    {name:<12} {told}\n")


def _newest_runs(place: Workplace) -> dict[str, dict[str, dict[str, Any]]]:
    """Run id -> stage -> its row of `stage_runs`, the run that did something last first."""
    if place.database.revision() is None:
        return {}
    table = TABLES["stage_runs"]
    newest = sa.func.max(table.c.started_at)
    query = sa.select(table.c.run_id).group_by(table.c.run_id).order_by(newest.desc()).limit(_SHOWN_RUNS)
    run_ids = [row["run_id"] for row in place.database.select(query)]
    rows = place.database.select(sa.select(table).where(table.c.run_id.in_(run_ids)))
    return {run: {row["stage"]: row for row in rows if row["run_id"] == run} for run in run_ids}


def _describe(row: dict[str, Any] | None) -> str:
    if row is None:
        return "not reached"
    times = f"{row['started_at']} to {row['ended_at']}" if row["ended_at"] else f"since {row['started_at']}"
    code = f", exit code {row['exit_code']}" if row["exit_code"] else ""
    message = f": {str(row['message']).splitlines()[0]}" if row["message"] else ""
    return f"{row['state']} (attempt {row['attempt']}, {times}{code}){message}"
