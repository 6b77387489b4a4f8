"""python -m jobs.export, as a person runs it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys

from pipeline_common.database import Database
from pipeline_common.stages import REPOSITORY
from tests.common.database.made_rows import rows_of_every_table


def export(*arguments, **environment):
    clean = {name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "ARTIFACTS_URI"}}
    return subprocess.run(
        [sys.executable, "-m", "jobs.export", *arguments],
        cwd=REPOSITORY,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_all_runs_or_one_from_either_database(database, tmp_path):
    for run_id in ("run-a", "run-b"):
        for table, rows in rows_of_every_table(run_id).items():
            database.upsert(table, rows)
    url = database.engine.url.render_as_string(hide_password=False)
    done = export(f"runtime.output_dir={tmp_path}/out", DATABASE_URL=url)
    assert done.returncode == 0, done.stderr
    assert "2 experiments" in done.stdout
    one = export(
        "--run", "run-b", "--to", str(tmp_path / "one.db"), f"runtime.output_dir={tmp_path}/out", DATABASE_URL=url
    )
    assert one.returncode == 0, one.stderr
    with sqlite3.connect(tmp_path / "one.db") as copy:
        assert copy.execute("SELECT run_id FROM experiments").fetchall() == [("run-b",)]
    with sqlite3.connect(tmp_path / "out" / "centralized.db") as copy:
        assert len(copy.execute("SELECT run_id FROM experiments").fetchall()) == 2
    absent = export("--run", "run-c", f"runtime.output_dir={tmp_path}/out", DATABASE_URL=url)
    assert absent.returncode == 3
    assert "holds no run called run-c" in absent.stderr


def test_no_database_yet_is_said_and_none_is_made(tmp_path):
    done = export(f"runtime.output_dir={tmp_path}/out")
    assert done.returncode == 3
    assert "run the pipeline first" in done.stderr
    assert not (tmp_path / "out" / "results.db").exists()


def test_a_server_of_another_kind_is_refused(tmp_path):
    done = export(f"runtime.output_dir={tmp_path}/out", DATABASE_URL="mysql://u:hunter2@h/d")
    assert done.returncode == 2
    assert "hunter2" not in done.stderr


def test_the_database_is_opened_with_the_settings(empty_postgres, tmp_path):
    """An empty server has no schema, and an export makes none."""
    done = export(f"runtime.output_dir={tmp_path}/out", DATABASE_URL=empty_postgres.url)
    assert done.returncode == 3
    assert "schema revision none" in done.stderr
    assert Database(empty_postgres.url, 5).revision() is None


def test_a_target_that_cannot_be_written_is_the_one_that_is_named(tmp_path):
    Database(f"sqlite:///{tmp_path}/results.db", 5).migrate()
    (tmp_path / "file").write_text("")
    # A file where a folder should be stops root as well.
    done = export("--to", f"{tmp_path}/file/copy.db", f"runtime.output_dir={tmp_path}")
    assert done.returncode == 2
    told = f"{tmp_path}/file/copy.db cannot be written: {tmp_path}/file: File exists; give a path this user may write"
    assert done.stderr == f"export: {told}\n"
