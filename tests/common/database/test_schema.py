"""Migrations, on both databases: exactly the tables of the code, no row lost, one process at a time."""

from __future__ import annotations

import json
import multiprocessing
import sqlite3
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from pipeline_common.database import HEAD_REVISION, MIGRATIONS, Database
from pipeline_common.database.schema import migrate
from pipeline_common.tables import TABLES, metadata
from tests.common.database.made_rows import RUN


def checks_and_indexes(engine):
    inspector = sa.inspect(engine)
    return {
        table: (
            sorted(check["name"] for check in inspector.get_check_constraints(table)),
            sorted(index["name"] for index in inspector.get_indexes(table)),
            [(key["referred_table"], key["options"].get("ondelete")) for key in inspector.get_foreign_keys(table)],
        )
        for table in TABLES
    }


def test_the_migrations_make_exactly_the_tables_of_the_code(database, tmp_path, request):
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
    if database.embedded:
        other = sa.create_engine(f"sqlite:///{tmp_path}/created.db")
    else:
        empty = request.getfixturevalue("empty_postgres")
        other = Database(empty.url, 5).engine
    metadata.create_all(other)
    assert checks_and_indexes(database.engine) == checks_and_indexes(other)
    other.dispose()
    assert database.revision() == HEAD_REVISION
    assert {"experiments", "training_metrics", "aqi_scores", "model_responses", "evaluation_summary"} <= set(TABLES)


def test_the_head_revision_of_the_code_is_the_newest_migration():
    newest = sorted(path.name for path in (MIGRATIONS / "versions").glob("*.py"))[-1]
    assert newest.startswith(f"{HEAD_REVISION}_")


def test_every_column_says_what_it_is_also_in_the_database(migrated_postgres):
    silent = [f"{table}.{column.name}" for table in TABLES.values() for column in table.columns if not column.comment]
    assert silent == []
    engine = Database(migrated_postgres.url, 5).engine
    for name, table in TABLES.items():
        told = {column["name"]: column["comment"] for column in sa.inspect(engine).get_columns(name)}
        assert told == {column.name: column.comment for column in table.columns}
    engine.dispose()


def test_postgres_keeps_times_as_times_and_json_as_jsonb(migrated_postgres):
    kinds = dict(
        migrated_postgres.execute(
            "SELECT table_name || '.' || column_name, data_type FROM information_schema.columns "
            "WHERE table_schema = 'public'"
        )
    )
    assert kinds["stage_runs.started_at"] == kinds["experiments.created_at"] == "timestamp with time zone"
    assert {kinds[name] for name in ("experiments.config", "model_responses.judge_scores")} == {"jsonb"}
    assert kinds["training_metrics.loss"] == kinds["aqi_scores.base_aqi_low"] == "double precision"


def test_migrating_again_changes_nothing(database):
    database.upsert("experiments", [RUN])
    database.migrate()
    assert len(database.select(sa.select(TABLES["experiments"]))) == 1


# As the first schema kept them: times as text, JSON as text.
FIRST_ROWS = {
    "experiments": [
        {
            "run_id": run_id,
            "profile": "tiny",
            "created_at": "2026-01-01T00:00:00.123+00:00",
            "base_model": "embedded",
            "base_commit": None,
            "dataset": "d",
            "prompts": "p",
            "code_commit": "e" * 40,
            "code_dirty": True,
            "config": json.dumps({"b": 1, "a": [1.5, None, "é"]}),
            "machine": None,
        }
        for run_id in ("one", "two")
    ],
    "stage_runs": [
        {
            "run_id": "one",
            "stage": stage,
            "fingerprint": "f",
            "state": state,
            "attempt": 1,
            "started_at": "2026-01-01T00:00:00.123+00:00",
            "ended_at": ended,
            "exit_code": code,
            "message": None,
            "artifact": artifact,
        }
        for stage, state, ended, code, artifact in (
            ("prepare", "done", "2026-01-01T00:01:00.000+00:00", 0, "prepare/f"),
            ("train", "running", None, None, None),
        )
    ],
    "training_metrics": [
        {
            "run_id": "one",
            "split": "train",
            "step": step,
            "epoch": 0.1,
            "loss": 1 / step,
            "learning_rate": None,
            "grad_norm": 0.5,
            "tokens_per_second": 1e4,
        }
        for step in range(1, 301)
    ],
    "model_responses": [
        {
            "run_id": "two",
            "prompt_id": "row-000001",
            "model_role": role,
            "axiom": "a",
            "safety_label": "safe",
            "prompt": "p",
            "response": "r",
            "response_tokens": 1,
            "finished": True,
            "refused": False,
            "refusal_log_odds": -1.5,
            "judge_scores": scores,
        }
        for role, scores in (("base", json.dumps({"harm": 1.0})), ("tuned", None))
    ],
    "evaluation_summary": [
        {
            "run_id": "two",
            "name": "verdict",
            "status": "damaged",
            "base": 1.0,
            "tuned": None,
            "value": None,
            "value_low": None,
            "value_high": None,
            "unit": None,
            "interpretation": "i",
            "details": json.dumps({"a": 1}),
        }
    ],
}
DECODED = {"config", "machine", "judge_scores", "details"}


def fill_first_schema(database):
    migrate(database, "0001")
    assert database.revision() == "0001"

    def insert(connection):
        for table, rows in FIRST_ROWS.items():
            names = list(rows[0])
            values = ", ".join(
                f"CAST(:{name} AS JSON)" if name in DECODED and not database.embedded else f":{name}" for name in names
            )
            connection.execute(sa.text(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({values})"), rows)

    database.transact(insert)


def as_read(row):
    def convert(name, value):
        if value is None:
            return None
        if name in DECODED:
            return json.loads(value)
        return datetime.fromisoformat(value).astimezone(UTC) if name.endswith("_at") else value

    return {name: convert(name, value) for name, value in row.items()}


def test_a_database_of_the_first_schema_keeps_every_row(database_url):
    database = Database(database_url, 5)
    fill_first_schema(database)
    database.migrate()
    assert database.revision() == HEAD_REVISION
    for table, rows in FIRST_ROWS.items():
        keys = TABLES[table].primary_key.columns
        found = database.select(sa.select(TABLES[table]).order_by(*keys))
        wanted = [as_read(row) for row in rows]
        assert sorted(found, key=str) == sorted(wanted, key=str), table
    assert database.select(sa.select(TABLES["aqi_scores"])) == []
    with pytest.raises(sa.exc.IntegrityError):
        database.upsert("training_metrics", [{**FIRST_ROWS["training_metrics"][0], "step": 0}])
    with pytest.raises(sa.exc.IntegrityError):
        database.upsert("training_metrics", [{**FIRST_ROWS["training_metrics"][0], "run_id": "nobody"}])
    database.engine.dispose()


def test_there_is_a_way_back_to_the_first_schema(empty_postgres):
    from alembic import command
    from alembic.config import Config

    database = Database(empty_postgres.url, 5)
    fill_first_schema(database)
    first = checks_and_indexes(database.engine)
    database.migrate()
    settings = Config()
    settings.set_main_option("script_location", str(MIGRATIONS))

    def downgrade(connection):
        settings.attributes["connection"] = connection
        command.downgrade(settings, "0001")

    database.transact(downgrade)
    assert checks_and_indexes(database.engine) == first
    times = [row[0] for row in empty_postgres.execute("SELECT created_at FROM experiments")]
    assert times == [row["created_at"] for row in FIRST_ROWS["experiments"]]
    database.engine.dispose()


def _migrate_in_a_process(url, barrier, failures):
    database = Database(url, 5, give_up_after_s=20)
    barrier.wait()
    try:
        database.migrate()
        database.require_schema()
    except Exception as error:
        failures.put(repr(error))
        raise


def test_four_processes_migrate_at_once(database_url):
    database = Database(database_url, 5)
    fill_first_schema(database)
    database.engine.dispose()
    fork = multiprocessing.get_context("fork")
    barrier, failures = fork.Barrier(4), fork.Queue()
    processes = [fork.Process(target=_migrate_in_a_process, args=(database_url, barrier, failures)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4, failures.get()
    assert len(database.select(sa.select(TABLES["training_metrics"]))) == 300
    database.engine.dispose()


def test_a_migration_that_breaks_off_leaves_the_old_schema(tmp_path):
    url = f"sqlite:///{tmp_path}/results.db"
    database = Database(url, 5)
    fill_first_schema(database)
    # A name that the migration will want stops it after it has rebuilt several tables.
    database.transact(lambda connection: connection.exec_driver_sql("CREATE TABLE ix_aqi_scores_scope_name (a)"))
    with pytest.raises(Exception, match="ix_aqi_scores_scope_name"):
        database.migrate()
    assert database.revision() == "0001"
    with sqlite3.connect(tmp_path / "results.db") as plain:
        assert plain.execute("SELECT count(*) FROM training_metrics").fetchone() == (300,)
        assert (
            "step >= 1"
            not in plain.execute("SELECT sql FROM sqlite_master WHERE name = 'training_metrics'").fetchone()[0]
        )
