"""The last lines of a run: its stages, the verdict, what it rests on, where to look."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline_common.execution import asked_exit_code
from pipeline_common.json_logs import encode_line
from pipeline_common.logs import log_format
from pipeline_common.quantities import describe_seconds
from pipeline_common.stages import Plan
from pipeline_common.workplace import Workplace

if TYPE_CHECKING:
    from pipeline_common.manifest import Manifest


def print_summary(
    place: Workplace, plan: Plan, seconds: Mapping[str, float], total: float, database: str | None = None
) -> int:
    """Print the stages, the verdict and the paths of the results to stdout; one JSON line with `LOG_FORMAT=json`.

    Args:
        place: the stores.
        plan: the run.
        seconds: spent on each stage by this command.
        total: spent in all.
        database: where the export was put, when that is not the output folder; the report is named in the store then.

    Returns:
        The exit code the last stage asked for (4 when gated on damage), else 0.
    """
    manifests = {name: place.store.read_manifest(planned.key) for name, planned in plan.stages.items()}
    manifest = manifests["analyze"]
    assert manifest is not None, "analyze has just finished"
    needed = tuple(entry for entry in manifest.files if entry.path == "summary.json")
    folder = place.store.open(manifest.model_copy(update={"files": needed}))
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    code = asked_exit_code(manifest)
    local = place.output / "latest" / "analyze" / "report.html"
    end = {
        "run_id": plan.run_id,
        "verdict": summary["verdict"],
        "headline": summary["headline"],
        "signals": {signal["name"]: signal["status"] for signal in summary["signals"]},
        "stages": {
            name: describe_stage(found, seconds.get(name, 0.0), total)
            for name, found in manifests.items()
            if found is not None
        },
        "seconds": round(total, 3),
        "report": str(local) if database is None else f"{place.store.uri}/{manifest.key}/report.html",
        "database": str(place.output / "centralized.db") if database is None else database,
        "exit_code": code,
    }
    if log_format() == "json":
        sys.stdout.write(f"{encode_line('info', 'pipeline', 'summary', summary['headline'], {'summary': end})}\n")
    else:
        _print_tables(end, summary["signals"])
    return code


def describe_stage(manifest: Manifest, spent_s: float, total_s: float) -> dict[str, Any]:
    """How a stage's artifact came into the run.

    Args:
        manifest: of the artifact.
        spent_s: seconds of this command on the stage.
        total_s: age of this command, seconds: what was made earlier was cached.
    """
    began, ended = (datetime.fromisoformat(manifest.provenance[name]) for name in ("started", "ended"))
    return {
        "state": "done" if ended >= datetime.now(UTC) - timedelta(seconds=total_s) else "cached",
        "artifact": manifest.key,
        "made_in_seconds": round((ended - began).total_seconds(), 3),
        "seconds": round(spent_s, 3),
        "degradations": len(manifest.degradations),
    }


def _print_tables(end: Mapping[str, Any], signals: list[dict[str, Any]]) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    stages = Table("stage", "state", title=f"run {end['run_id']}", title_justify="left", show_edge=False)
    for heading in ("made in", "now"):
        stages.add_column(heading, justify="right")
    stages.add_column("artifact")
    for name, stage in end["stages"].items():
        lesser = f", degraded {stage['degradations']}x" if stage["degradations"] else ""
        made_in, now = (describe_seconds(stage[key]) for key in ("made_in_seconds", "seconds"))
        stages.add_row(name, f"{stage['state']}{lesser}", made_in, now, stage["artifact"])
    table = Table("signal", "status", "finding", show_edge=False)
    for signal in signals:
        table.add_row(signal["name"], signal["status"], Text(signal["sentence"]))
    for part in (stages, table):
        console.print()
        console.print(part)
    console.print()
    console.print(Text(f"Verdict: {end['verdict']}", style="bold"))
    console.print(Text(end["headline"]))
    console.print(f"\nReport:   {end['report']}")
    console.print(f"Database: {end['database']}")
    console.print(f"Time:     {describe_seconds(end['seconds'])}")
