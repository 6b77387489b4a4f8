"""Metric rows into Postgres, and the export of a million of them, each as a process of its own.

    python -m tests.benchmarks --only database

Starts a Postgres server on this machine (as the tests do: password authentication, no fsync). Rates are rows over the
whole process, imports and connecting included.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipeline_common.database import Database, read_rows, write_rows

if TYPE_CHECKING:
    from tests.benchmarks.__main__ import Timing

RUN_ID: Final = "bench"
WRITTEN_ROWS: Final = 100_000
EXPORTED_ROWS: Final = 1_000_000


def metric_rows(count: int) -> Iterator[dict[str, Any]]:
    for step in range(1, count + 1):
        yield {
            "split": "train",
            "step": step,
            "epoch": step / 7,
            "loss": 8.0 / step,
            "learning_rate": 2e-4 / step,
            "grad_norm": 1.0 + 1 / step,
            "tokens_per_second": 9934.0 + 1 / step,
        }


def make_run(url: str) -> None:
    """The schema and the run that the rows belong to."""
    database = Database(url, 10)
    database.migrate()
    run = {"run_id": RUN_ID, "profile": "bench", "created_at": "2026-01-01T00:00:00+00:00", "base_model": "m"}
    database.upsert("experiments", [{**run, "dataset": "d", "prompts": "p", "config": {}}])
    database.engine.dispose()


def write(url: str, rows: Path, how: str) -> None:
    """One timed process: the rows of an artifact, replaced as at the end of a stage, or upserted as while it runs."""
    database = Database(url, 10)
    if how == "replace":
        database.replace_run(RUN_ID, {"training_metrics": partial(read_rows, rows)})
    else:
        database.upsert("training_metrics", [{"run_id": RUN_ID, **row} for row in read_rows(rows)])


def bench() -> list[Timing]:
    """Write, write again over what is there, export from both databases."""
    from tests.benchmarks.__main__ import measure
    from tests.servers.postgres import PostgresServer

    def timed(name: str, limit: str, count: int, *command: str) -> Timing:
        timing = measure(name, limit, sys.executable, "-m", *command)
        return replace(timing, name=f"{name}: {count / timing.wall_s:,.0f} rows/s")

    server = PostgresServer()
    try:
        server.start()
        with tempfile.TemporaryDirectory() as folder:
            postgres, embedded = server.create_database().url, f"sqlite:///{folder}/results.db"
            rows, millions = Path(folder) / "rows.jsonl", Path(folder) / "millions.jsonl"
            write_rows(rows, metric_rows(WRITTEN_ROWS))
            write_rows(millions, metric_rows(EXPORTED_ROWS))
            timings = []
            make_run(postgres)
            for how, title in (
                ("replace", "metric rows into Postgres at a stage's end"),
                ("upsert", "metric rows over those that are there"),
            ):
                command = ("tests.benchmarks.bench_database", "--url", postgres, "--rows", str(rows), "--how", how)
                timings.append(timed(f"{WRITTEN_ROWS:,} {title}", "20,000 rows/s", WRITTEN_ROWS, *command))
            for url, title in ((postgres, "Postgres"), (embedded, "SQLite")):
                make_run(url)
                write(url, millions, "replace")
                command = (
                    "tests.benchmarks.bench_database",
                    "--url",
                    url,
                    "--how",
                    "export",
                    "--rows",
                    f"{folder}/c.db",
                )
                timings.append(
                    timed(
                        f"export of {EXPORTED_ROWS:,} metric rows from {title}",
                        "100,000 rows/s, 200 MiB",
                        EXPORTED_ROWS,
                        *command,
                    )
                )
            return timings
    finally:
        server.stop()


def main() -> None:
    """One timed process."""
    from pipeline_common.sqlite_export import export_sqlite

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--rows", type=Path, required=True, help="JSON Lines to write, or the file to export to")
    parser.add_argument("--how", choices=["replace", "upsert", "export"], required=True)
    arguments = parser.parse_args()
    if arguments.how == "export":
        export_sqlite(Database(arguments.url, 10), arguments.rows)
    else:
        write(arguments.url, arguments.rows, arguments.how)


if __name__ == "__main__":
    main()
