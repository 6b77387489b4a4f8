"""A million metric rows are exported as a stream: the exporting process stays under 200 MiB."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys

import pytest

from pipeline_common.database import Database
from pipeline_common.stages import REPOSITORY
from tests.common.database.made_rows import RUN

ROWS = 1_000_000
SCRIPT = """
import pathlib, sys
from pipeline_common.database import Database
from pipeline_common.sqlite_export import export_sqlite
counts = export_sqlite(Database(sys.argv[1], 5), pathlib.Path(sys.argv[2]))
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(counts["training_metrics"], int(status["VmHWM"].split()[0]) // 1024)
"""
MADE = {
    "postgresql": "SELECT %s, 'train', step, step, step * 0.5 FROM generate_series(1, %s) AS step",
    "sqlite": "WITH RECURSIVE n(step) AS (SELECT 1 UNION ALL SELECT step + 1 FROM n WHERE step < ?2) "
    "SELECT ?1, 'train', step, step, step * 0.5 FROM n",
}


@pytest.fixture(params=["postgresql", "sqlite"])
def source(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/source.db"
    return request.getfixturevalue("migrated_postgres").url


def test_a_million_rows_stay_under_200_mib(source, tmp_path):
    database = Database(source, 5)
    database.migrate()
    database.upsert("experiments", [RUN])
    insert = "INSERT INTO training_metrics (run_id, split, step, epoch, loss) "
    with database.engine.begin() as connection:
        connection.exec_driver_sql(insert + MADE[database.engine.dialect.name], (RUN["run_id"], ROWS))
    database.engine.dispose()
    target = tmp_path / "centralized.db"
    # VmHWM, not ru_maxrss: that keeps what this process had when it started the other.
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, source, str(target)],
        cwd=REPOSITORY,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=True,
    )
    count, peak_mib = map(int, done.stdout.split())
    assert count == ROWS
    assert peak_mib < 200
    with sqlite3.connect(target) as copy:
        assert copy.execute("SELECT count(*), sum(step), sum(loss) FROM training_metrics").fetchone() == (
            ROWS,
            ROWS * (ROWS + 1) // 2,
            ROWS * (ROWS + 1) / 4,
        )
