"""Saying what goes, and taking it away: runs first, then artifacts, each manifest before its files."""

from __future__ import annotations

import shutil

import sqlalchemy as sa

from jobs.prune.choosing import PROBES, RUNS, SHARED, Folder, Pruning, Run, find_references, find_runs
from pipeline_common.database.lock import try_stage
from pipeline_common.logs import get_logger
from pipeline_common.quantities import describe_bytes
from pipeline_common.stages import STAGE_NAMES
from pipeline_common.tables import TABLES
from pipeline_common.workplace import Workplace

_log = get_logger(__name__)


def describe(place: Workplace, pruning: Pruning, *, apply: bool) -> str:
    """What goes and what stays, for people."""
    would = "" if apply else "would "
    lines = [f"Artifacts in {place.store.uri}, runs in {place.database.shown_url} and in the store"]
    for run in pruning.forgotten:
        begun = f"begun {run.begun:%Y-%m-%d}" if run.begun else "known to the store alone"
        lines.append(f"  {would}forget run {run.run_id} ({begun}): its rows and its record")
    lines += [f"  keep run {told}" for told in pruning.spared]
    for folder, why in pruning.removed:
        size = describe_bytes(folder.size)
        lines.append(f"  {would}remove {folder.key}  {size}, written {folder.written:%Y-%m-%d}: {why}")
    total = describe_bytes(sum(folder.size for folder, _ in pruning.removed))
    kept = describe_bytes(sum(folder.size for folder in pruning.kept))
    lines.append(f"{would}remove {len(pruning.removed)} folders, {total}; {len(pruning.kept)} stay, {kept}")
    if not apply:
        lines.append("nothing was changed; --apply does it")
    return "\n".join(lines) + "\n"


def remove(place: Workplace, pruning: Pruning) -> str:
    """Do it. Killed at any moment, the same command goes on.

    Returns:
        What was done, for people: what somebody began to use since the plan was made stays.
    """
    for run in pruning.forgotten:
        _forget(place, run)
    done, size = 0, 0
    for folder, _ in pruning.removed:
        if _remove_unused(place, folder):
            done, size = done + 1, size + folder.size
        else:
            _log.warning("%s is in use now, and stays", folder.key)
    latest = place.output / "latest"
    for link in latest.iterdir() if latest.is_dir() else ():
        if link.is_symlink() and not link.exists():
            link.unlink()
    return f"removed {done} folders, {describe_bytes(size)}; forgot {len(pruning.forgotten)} runs\n"


def _forget(place: Workplace, run: Run) -> None:
    """The run's rows in every table, and what the store keeps below `runs/<run_id>`."""
    experiments = TABLES["experiments"]
    statement = sa.delete(experiments).where(experiments.c.run_id == run.run_id)
    # The other tables' rows go with it: each points at its run.
    place.database.transact(lambda connection: connection.execute(statement))
    for path, _, _ in place.store.list_objects(f"{RUNS}/{run.run_id}"):
        place.store.delete(path)


def _remove_unused(place: Workplace, folder: Folder) -> bool:
    """Remove a folder unless a run has begun to use it; a stage that wants it now waits, and makes it again."""
    area, _, _ = folder.key.partition("/")
    if area == PROBES:
        place.store.delete(folder.key)
        return True
    if area not in STAGE_NAMES:
        if area in SHARED and folder.key in find_references(place, find_runs(place).values()):
            return False
        place.store.withdraw(folder.key)
        return True
    with try_stage(place.database, "", area, folder.key) as free:
        table = TABLES["stage_runs"]
        query = sa.select(table.c.run_id).where(
            table.c.stage == area, table.c.fingerprint == folder.key.partition("/")[2]
        )
        if not free or place.database.select(query.limit(1)):
            return False
        place.store.withdraw(folder.key)
        # What attempts at it left on this machine.
        shutil.rmtree(place.output / "work" / folder.key.replace("/", "-"), ignore_errors=True)
    return True
