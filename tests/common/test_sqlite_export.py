from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import sqlite3
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from pipeline_common.database import HEAD_REVISION, Database
from pipeline_common.errors import InputError, TransientError
from pipeline_common.sqlite_export import export_sqlite
from pipeline_common.tables import TABLES
from tests.common.database.made_rows import full_metrics, rows_of_every_table

# More rows than one batch, so that streaming is exercised.
METRICS = 4100


@pytest.fixture
def filled(database: Database) -> Database:
    """Two runs with rows in every table, whatever the database."""
    for run_id in ("run-a", "run-b"):
        for table, rows in rows_of_every_table(run_id).items():
            database.upsert(table, rows)
        database.replace_run(run_id, {"training_metrics": lambda: iter(full_metrics(METRICS))})
    return database


def ordered(database: Database, table: sa.Table, run_id: str | None = None) -> list[dict[str, object]]:
    query = sa.select(table).order_by(*table.primary_key.columns)
    return database.select(query if run_id is None else query.where(table.c.run_id == run_id))


@pytest.mark.parametrize("run_id", [None, "run-b"], ids=["all runs", "one run"])
def test_every_row_of_every_table_is_equal(filled: Database, tmp_path: Path, run_id: str | None) -> None:
    target = tmp_path / "deep" / "centralized.db"

    counts = export_sqlite(filled, target, None if run_id is None else [run_id])

    copy = Database(f"sqlite:///{target}", connect_timeout_s=5)
    for table in TABLES.values():
        rows = ordered(filled, table, run_id)
        assert ordered(copy, table) == rows, table.name
        assert counts[table.name] == len(rows) > 0
    assert counts["training_metrics"] == METRICS * (2 if run_id is None else 1)
    assert copy.revision() == HEAD_REVISION
    copy.require_schema()


def test_the_file_is_the_same_to_the_byte_from_either_database(migrated_postgres, tmp_path: Path) -> None:
    contents = []
    for number, url in enumerate((migrated_postgres.url, f"sqlite:///{tmp_path}/source.db")):
        source = Database(url, 5)
        source.migrate()
        for run_id in ("run-a", "run-b"):
            for table, rows in rows_of_every_table(run_id).items():
                source.upsert(table, rows)
        export_sqlite(source, tmp_path / f"{number}.db")
        contents.append((tmp_path / f"{number}.db").read_bytes())
        source.engine.dispose()
    assert contents[0] == contents[1]


def test_plain_sqlite_opens_it_with_the_columns_and_types_of_an_embedded_database(
    filled: Database, tmp_path: Path
) -> None:
    target = tmp_path / "centralized.db"
    export_sqlite(filled, target)
    Database(f"sqlite:///{tmp_path}/embedded.db", 5).migrate()

    with sqlite3.connect(target) as copy, sqlite3.connect(tmp_path / "embedded.db") as embedded:
        assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        for name in [*TABLES, "alembic_version"]:
            described = f"SELECT name, type, \"notnull\", pk FROM pragma_table_info('{name}') ORDER BY name"
            assert copy.execute(described).fetchall() == embedded.execute(described).fetchall(), name
        # Missing JSON is NULL, not the text 'null'; present JSON is text that any tool can read.
        assert copy.execute("SELECT count(*) FROM model_responses WHERE judge_scores IS NULL").fetchone() == (2,)
        (config,) = copy.execute("SELECT config FROM experiments WHERE run_id = 'run-a'").fetchone()
        assert json.loads(config) == rows_of_every_table("run-a")["experiments"][0]["config"]
        # Times are text that SQLite's own functions read, in UTC.
        moments = "SELECT started_at, julianday(ended_at) > julianday(started_at) FROM stage_runs"
        assert copy.execute(moments).fetchall() == [("2026-01-01T00:00:00.001+00:00", 1)] * 2
        assert copy.execute("SELECT DISTINCT typeof(loss), typeof(step) FROM training_metrics").fetchall() == [
            ("real", "integer")
        ]
        indexes = "SELECT name FROM sqlite_master WHERE type = 'index' AND name LIKE 'ix_%' ORDER BY name"
        assert copy.execute(indexes).fetchall() == embedded.execute(indexes).fetchall() != []


def test_an_unknown_run_is_named_and_the_old_file_stays(filled: Database, tmp_path: Path) -> None:
    target = tmp_path / "centralized.db"
    target.write_bytes(b"the old one")

    with pytest.raises(InputError, match=r"no run called run-c; it holds run-a, run-b"):
        export_sqlite(filled, target, run_ids=["run-c"])

    assert target.read_bytes() == b"the old one"
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_an_orphaned_row_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    embedded = Database(f"sqlite:///{tmp_path}/source.db", 5)
    embedded.migrate()
    for table, rows in rows_of_every_table("run-a").items():
        embedded.upsert(table, rows)
    with sqlite3.connect(tmp_path / "source.db") as source:  # foreign keys are off in a plain connection
        source.execute("DELETE FROM experiments WHERE run_id = 'run-a'")
    target = tmp_path / "centralized.db"

    with pytest.raises(TransientError, match="row 1 has no experiments"):
        export_sqlite(embedded, target)

    assert not target.exists()
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_the_same_rows_give_the_same_bytes_and_replace_the_file(filled: Database, tmp_path: Path) -> None:
    target = tmp_path / "centralized.db"
    export_sqlite(filled, target)
    first = target.read_bytes()

    export_sqlite(filled, target)
    assert target.read_bytes() == first

    experiments = TABLES["experiments"]
    filled.transact(
        lambda connection: connection.execute(sa.delete(experiments).where(experiments.c.run_id == "run-a"))
    )
    assert export_sqlite(filled, target)["training_metrics"] == METRICS  # the run's rows went with it


def test_indexes_are_made_in_one_order(filled: Database, tmp_path: Path) -> None:
    """Otherwise another process writes other bytes."""
    export_sqlite(filled, tmp_path / "centralized.db")
    with sqlite3.connect(tmp_path / "centralized.db") as copy:
        made = copy.execute(
            "SELECT tbl_name, name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
        ).fetchall()
    assert len(made) == sum(len(table.indexes) for table in TABLES.values()) > 1
    for table in TABLES:
        names = [name for table_name, name in made if table_name == table]
        assert names == sorted(names)


def test_a_database_of_another_schema_is_refused(database: Database, tmp_path: Path) -> None:
    database.transact(lambda connection: connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'")))

    with pytest.raises(InputError, match="schema revision 9999"):
        export_sqlite(database, tmp_path / "centralized.db")


def _export_in_a_process(url: str, target: Path) -> None:
    export_sqlite(Database(url, 5), target)


def test_killed_at_any_moment_the_old_file_is_whole_and_nothing_is_left_behind(
    filled: Database, tmp_path: Path
) -> None:
    target = tmp_path / "centralized.db"
    export_sqlite(filled, target)
    old = target.read_bytes()
    url = filled.engine.url.render_as_string(hide_password=False)
    filled.replace_run("run-a", {"training_metrics": lambda: iter(full_metrics(20_000))})
    filled.engine.dispose()
    moments = random.Random(4)
    killed = 0
    for _ in range(6):
        process = multiprocessing.get_context("fork").Process(target=_export_in_a_process, args=(url, target))
        process.start()
        time.sleep(moments.uniform(0.03, 0.2))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        if process.exitcode == -signal.SIGKILL:
            assert target.read_bytes() == old
    assert killed >= 3, "the kills came too late to test anything"
    assert export_sqlite(filled, target)["training_metrics"] == 20_000 + METRICS
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_a_server_that_dies_in_mid_export_is_read_again(migrated_postgres, tmp_path: Path) -> None:
    source = Database(migrated_postgres.url, 5, give_up_after_s=30)
    source.upsert("experiments", rows_of_every_table("r")["experiments"])
    source.replace_run("r", {"training_metrics": lambda: iter(full_metrics(60_000))})
    server = migrated_postgres.server
    target = tmp_path / "centralized.db"
    process = multiprocessing.get_context("fork").Process(
        target=_export_patiently, args=(migrated_postgres.url, target)
    )
    process.start()
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("*.partial")):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    server.kill()
    server.start()
    process.join(120)
    assert process.exitcode == 0
    with sqlite3.connect(target) as copy:
        assert copy.execute("SELECT count(*) FROM training_metrics").fetchone() == (60_000,)
    source.engine.dispose()


def _export_patiently(url: str, target: Path) -> None:
    export_sqlite(Database(url, 5, give_up_after_s=30), target)
