"""What the results say about runs: where each stage stands, what it waits for, how long yet; what is cached."""

from __future__ import annotations

import fcntl
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from pipeline_common.explaining import why_not_cached
from pipeline_common.progress import PROGRESS_FILE, Progress, read_progress
from pipeline_common.quantities import describe_seconds
from pipeline_common.stages import STAGE_NAMES, Plan
from pipeline_common.tables import TABLES
from pipeline_common.workplace import Workplace

_SHOWN_RUNS: Final = 5
# A file that a killed process left says nothing about the next attempt's pace.
_FRESH_S: Final = 60.0
Row = Mapping[str, Any]


@dataclass(frozen=True)
class StageState:
    """One stage of one run."""

    stage: str
    state: str
    """running, done, cached, failed, stopped, killed, waiting, not begun or not reached."""
    told: str
    """The same for people, with times and reasons."""
    progress: Progress | None = None
    eta_s: float | None = None
    """Seconds until the loop it is in ends."""


@dataclass(frozen=True)
class Planned:
    """One stage of the settings given."""

    stage: str
    artifact: str
    cached: bool
    why: str
    """Why it would run; empty when cached."""


def read_status(place: Workplace, plan: Plan) -> dict[str, Any]:
    """Both as plain data, as `make status ARGS=--json` prints it; changes nothing."""
    runs = {run_id: _describe_run(place, rows) for run_id, rows in _newest_runs(place).items()}
    planned = []
    for name, stage in plan.stages.items():
        manifest = place.store.read_manifest(stage.key)
        planned.append(
            Planned(name, stage.key, manifest is not None, "" if manifest else why_not_cached(place.store, stage))
        )
    return {
        "artifacts": place.store.uri,
        "database": place.database.shown_url,
        "runs": [{"run_id": run_id, "stages": [asdict(state) for state in states]} for run_id, states in runs.items()],
        "settings": {"run_id": plan.run_id, "stages": [asdict(stage) for stage in planned]},
    }


def print_status(status: Mapping[str, Any]) -> None:
    """Write what `read_status` found to stdout, for people."""
    sys.stdout.write(f"Results in {status['artifacts']} and {status['database']}:\n")
    for run in status["runs"]:
        sys.stdout.write(f"  run {run['run_id']}\n")
        for state in run["stages"]:
            sys.stdout.write(f"    {state['stage']:<12} {state['told']}\n")
    if not status["runs"]:
        sys.stdout.write("  no run yet\n")
    sys.stdout.write(f"With the settings given, run {status['settings']['run_id']}:\n")
    for stage in status["settings"]["stages"]:
        told = f"cached as {stage['artifact']}" if stage["cached"] else f"would run: {stage['why']}"
        sys.stdout.write(f"    {stage['stage']:<12} {told}\n")


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


def _describe_run(place: Workplace, rows: Mapping[str, Row]) -> list[StageState]:
    states: list[StageState] = []
    for name in STAGE_NAMES:
        row = rows.get(name)
        states.append(_absent(name, states) if row is None else _present(place, row))
    return states


def _absent(name: str, earlier: list[StageState]) -> StageState:
    """A stage without a row: what keeps it from starting is the last one that did."""
    last = next(
        (state for state in reversed(earlier) if state.state not in {"waiting", "not begun", "not reached"}), None
    )
    if last is not None and last.state == "running":
        return StageState(name, "waiting", f"waits for {last.stage}")
    if last is not None and last.state in {"failed", "stopped", "killed"}:
        return StageState(name, "not reached", f"not reached: {last.stage} {_ENDED[last.state]}")
    if last is None or STAGE_NAMES.index(name) - STAGE_NAMES.index(last.stage) == 1:
        # Between two stages of a run, or after one that was run by itself.
        return StageState(name, "not begun", "not begun")
    return StageState(name, "waiting", f"waits for {STAGE_NAMES[STAGE_NAMES.index(name) - 1]}")


_ENDED: Final = {"failed": "failed", "stopped": "was stopped", "killed": "was killed"}


def _present(place: Workplace, row: Row) -> StageState:
    name, state = str(row["stage"]), str(row["state"])
    if state != "running":
        return StageState(name, state, _describe_ended(row))
    since = f"attempt {row['attempt']}, since {row['started_at']:%Y-%m-%d %H:%M:%S} UTC"
    if not _may_live(place, row):
        told = f"killed without a word ({since}); the same command goes on"
        return StageState(name, "killed", told)
    progress = _find_progress(place, row)
    if progress is None:
        return StageState(name, state, f"running ({since})")
    return StageState(name, state, f"running ({since}): {progress.describe()}", progress, progress.eta_s)


def _describe_ended(row: Row) -> str:
    code = f", exit code {row['exit_code']}" if row["exit_code"] else ""
    times = f"{row['started_at']:%Y-%m-%d %H:%M:%S} to {row['ended_at']:%H:%M:%S} UTC"
    took = describe_seconds((row["ended_at"] - row["started_at"]).total_seconds())
    message = f": {str(row['message']).splitlines()[0]}" if row["message"] else ""
    return f"{row['state']} (attempt {row['attempt']}, {times}, {took}{code}){message}"


def _may_live(place: Workplace, row: Row) -> bool:
    """Whether a process may be working on the stage: with the embedded database it holds this machine's lock file."""
    lock = place.output / "work" / f"{row['stage']}-{row['fingerprint']}.lock"
    if not place.database.embedded or not lock.exists():
        return True
    with lock.open() as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _find_progress(place: Workplace, row: Row) -> Progress | None:
    """What its process wrote on this machine; of a training elsewhere, its newest row of `training_metrics`."""
    path: Path = place.output / "work" / f"{row['stage']}-{row['fingerprint']}" / PROGRESS_FILE
    local = read_progress(path)
    if local is not None and (local.is_phase or _age_s(local) < _FRESH_S):
        return local
    return _read_steps(place, row) if row["stage"] == "train" else None


def _age_s(seen: Progress) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(seen.at)).total_seconds()


def _read_steps(place: Workplace, row: Row) -> Progress | None:
    """Steps that the database has, of at most `train.max_steps`; the pace is that of the whole attempt so far."""
    metrics, runs = TABLES["training_metrics"], TABLES["experiments"]
    query = sa.select(metrics).where(metrics.c.run_id == row["run_id"], metrics.c.split == "train")
    newest = place.database.select(query.order_by(metrics.c.step.desc()).limit(1))
    if not newest:
        return None
    (run,) = place.database.select(sa.select(runs.c.config).where(runs.c.run_id == row["run_id"]))
    step, total = int(newest[0]["step"]), int(run["config"].get("train", {}).get("max_steps") or 0)
    told = ("loss", "tokens_per_second")
    values = {name: float(newest[0][name]) for name in told if newest[0][name] is not None}
    now = datetime.now(UTC)
    elapsed = (now - row["started_at"]).total_seconds()
    # An attempt that resumed has done fewer steps in this time, so it gets no estimate.
    eta = elapsed / step * (total - step) if row["attempt"] == 1 and total >= step else None
    return Progress("train", "training", step, total, "", values, eta, now.isoformat(timespec="milliseconds"))
