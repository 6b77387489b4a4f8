"""The last lines of a run: the verdict, what it rests on, where to look."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline_common.stages import Plan
from pipeline_common.workplace import Workplace


def print_summary(
    place: Workplace, plan: Plan, seconds: Mapping[str, float], total: float, database: str | None = None
) -> int:
    """Print the verdict and the paths of the results to stdout.

    Args:
        place: the stores.
        plan: the run.
        seconds: spent on each stage.
        total: spent in all.
        database: where the export was put, when that is not the output folder; the report is named in the store then.

    Returns:
        The exit code the last stage asked for (4 when gated on damage), else 0.
    """
    manifest = place.store.read_manifest(plan.stages["analyze"].key)
    assert manifest is not None, "analyze has just finished"
    needed = tuple(entry for entry in manifest.files if entry.path == "summary.json")
    folder = place.store.open(manifest.model_copy(update={"files": needed}))
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    console = Console(highlight=False, soft_wrap=True)
    table = Table("signal", "status", "finding", title=f"run {plan.run_id}", title_justify="left", show_edge=False)
    for signal in summary["signals"]:
        table.add_row(signal["name"], signal["status"], Text(signal["sentence"]))
    console.print()
    console.print(table)
    console.print()
    console.print(Text(f"Verdict: {summary['verdict']}", style="bold"))
    console.print(Text(summary["headline"]))
    times = ", ".join(f"{name} {spent:.1f} s" for name, spent in seconds.items())
    report = place.output / "latest" / "analyze" / "report.html"
    console.print(f"\nReport:   {report if database is None else f'{place.store.uri}/{manifest.key}/report.html'}")
    console.print(f"Database: {place.output / 'centralized.db' if database is None else database}")
    console.print(f"Time:     {total:.1f} s ({times})")
    return int(manifest.summary.get("exit_code", 0))
