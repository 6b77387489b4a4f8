"""A stage in a process of its own, with rows that arrive while it works: to be killed, cut off and started twice."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from pipeline_common import execution
from pipeline_common.cli import guard
from pipeline_common.config import load_config
from pipeline_common.context import Context, Outputs
from pipeline_common.database import Database
from pipeline_common.logs import start_console
from pipeline_common.stages import Plan, plan_run
from pipeline_common.tables import TABLES
from pipeline_common.workplace import open_workplace
from tests.common.database.made_rows import full_metrics, rows_of_every_table

RUN_ID = "faulty"
# It needs no inputs; what it does is ours.
STAGE = "environment"
ROW_TABLES = ("training_metrics", "model_responses", "aqi_scores", "evaluation_summary")
# For a machine with much else to do; no test waits so long where all is well.
PATIENCE_S = 120.0
_FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Setting:
    """Where the stage works."""

    folder: Path
    url: str
    output: str = "output"
    run_id: str = RUN_ID
    metrics: int = 300
    pause_s: float = 0.01
    give_up_after_s: float = 60.0
    force: bool = False
    held_after: int | None = None
    """After so many rows of metrics the stage works on only when the test lets it."""

    @property
    def overrides(self) -> list[str]:
        return [
            f"runtime.output_dir={self.folder / self.output}",
            f"artifacts.uri={self.folder / 'artifacts'}",
            f"database.give_up_after_s={self.give_up_after_s}",
            "database.connect_timeout_s=3",
        ]

    @property
    def fed(self) -> Path:
        """Exists once the first rows are on their way."""
        return self.folder / "fed"

    @property
    def finished(self) -> Path:
        """Exists once the stage has done its own work: from here on rows are written and files published."""
        return self.folder / "finished"

    @property
    def released(self) -> Path:
        """The test makes it: a stage that is held goes on."""
        return self.folder / "released"

    @property
    def log(self) -> Path:
        return self.folder / "console.log"

    def wait_until_told(self, text: str) -> None:
        """Until a process of the stage has said this."""
        wait_until(lambda: self.log.exists() and text in self.log.read_text(), f"the words {text!r}")

    @property
    def starts(self) -> int:
        """How often the stage's own work began."""
        path = self.folder / "starts"
        return len(path.read_text()) if path.exists() else 0

    def plan(self) -> Plan:
        return plan_run(load_config("tiny", self.overrides), self.run_id)

    def published(self) -> bool:
        return (self.folder / "artifacts" / self.plan().stages[STAGE].key / "manifest.json").exists()


def final_rows(metrics: int) -> dict[str, list[dict[str, Any]]]:
    """What the tables must hold in the end."""
    made = rows_of_every_table(RUN_ID)
    rows = {table: made[table] for table in ROW_TABLES}
    return {**rows, "training_metrics": [{"run_id": RUN_ID, **row} for row in full_metrics(metrics)]}


def start(setting: Setting) -> Any:
    """Start the stage; the process's exit code is the stage's."""
    process = _FORK.Process(target=_work, args=(setting,))
    process.start()
    return process


def run(setting: Setting) -> int:
    """Run the stage to its end; its exit code."""
    return finish(start(setting))


def finish(process: Any) -> int:
    """Wait for its end; its exit code."""
    process.join(PATIENCE_S)
    assert process.exitcode is not None, "the stage hangs"
    return process.exitcode


def wait_for(path: Path) -> None:
    """Until the stage has left this mark."""
    wait_until(path.exists, path.name)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Until it is so, or the test has failed."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.005)


def table_rows(url: str) -> dict[str, list[dict[str, Any]]]:
    """Every row of the tables the stage writes, in the order of their keys."""
    database = Database(url, 5)
    rows = {
        name: database.select(sa.select(TABLES[name]).order_by(*TABLES[name].primary_key.columns))
        for name in ROW_TABLES
    }
    database.engine.dispose()
    return rows


def stage_row(url: str) -> dict[str, Any]:
    """The one row of stage_runs."""
    database = Database(url, 5)
    (row,) = database.select(sa.select(TABLES["stage_runs"]))
    database.engine.dispose()
    return row


def _work(setting: Setting) -> None:
    os.environ["DATABASE_URL"] = setting.url
    os.environ.pop("ARTIFACTS_URI", None)
    with setting.log.open("a", encoding="utf-8") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    import sys

    sys.stderr = os.fdopen(2, "w", buffering=1)
    start_console("debug", STAGE)
    code = guard(STAGE, lambda: _run_stage(setting))
    sys.stderr.flush()
    os._exit(code)


def _run_stage(setting: Setting) -> int:
    config = load_config("tiny", setting.overrides)
    place, plan = open_workplace(config), plan_run(config, setting.run_id)
    execution.run_stage(place, plan, plan.stages[STAGE], _make_run(setting), force=setting.force)
    return 0


def _make_run(setting: Setting) -> Callable[[Context], Outputs]:
    def work(context: Context) -> Outputs:
        with (setting.folder / "starts").open("a") as starts:
            starts.write("x")
        metrics = full_metrics(setting.metrics)
        with context.feed_rows("training_metrics") as feed:
            for first in range(0, len(metrics), 10):
                feed.add(metrics[first : first + 10])
                setting.fed.touch()
                time.sleep(setting.pause_s)
                if setting.held_after == first + 10:
                    wait_for(setting.released)
        (context.files / "environment.json").write_text("{}")
        setting.finished.touch()
        wanted = final_rows(setting.metrics)
        return Outputs(
            rows={
                table: [{name: value for name, value in row.items() if name != "run_id"} for row in rows]
                for table, rows in wanted.items()
            },
            summary={"n": 1},
        )

    return work
