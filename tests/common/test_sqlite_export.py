from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa

from pipeline_common.database import HEAD_REVISION, Database
from pipeline_common.errors import InputError
from pipeline_common.sqlite_export import export_sqlite
from pipeline_common.tables import TABLES


def _experiment(run_id: str) -> dict[str, object]:
    return {
        "run_id": run_id,
        "profile": "tiny",
        "created_at": "2026-01-01T00:00:00.000+00:00",
        "base_model": "embedded",
        "dataset": "sample:alignment-healthy",
        "prompts": "sample:litmus",
        "code_dirty": False,
        "config": {"profile": "tiny", "nested": {"é": [1, 2.5, None, "<b>"]}},
    }


def _response(run_id: str, number: int, scores: dict[str, float] | None) -> dict[str, object]:
    return {
        "run_id": run_id,
        "prompt_id": f"row-{number:06d}",
        "model_role": "base",
        "axiom": "Civility & Tolerance",
        "safety_label": "unsafe",
        "prompt": "naïve “quotes” \U0001f600\nsecond line",
        "response": "I can't",
        "response_tokens": 3,
        "finished": True,
        "refused": True,
        "refusal_log_odds": 0.1 + 0.2,
        "judge_scores": scores,
    }


@pytest.fixture
def database(tmp_path: Path) -> Database:
    database = Database(f"sqlite:///{tmp_path / 'source.db'}", connect_timeout_s=5)
    database.migrate()
    for run_id in ("run-a", "run-b"):
        database.upsert("experiments", [_experiment(run_id)])
        # More rows than one batch, so that streaming is exercised.
        database.upsert(
            "model_responses",
            [_response(run_id, number, {"honesty": 0.25} if number % 2 else None) for number in range(1203)],
        )
    return database


def test_every_row_of_every_table_is_equal(database: Database, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "centralized.db"

    counts = export_sqlite(database, target)

    assert counts == {**dict.fromkeys(TABLES, 0), "experiments": 2, "model_responses": 2406}
    copy = Database(f"sqlite:///{target}", connect_timeout_s=5)
    for table in TABLES.values():
        query = sa.select(table).order_by(*table.primary_key.columns)
        assert copy.select(query) == database.select(query), table.name
    assert copy.revision() == HEAD_REVISION
    copy.require_schema()


def test_plain_sqlite_opens_it_with_the_same_columns_and_types(database: Database, tmp_path: Path) -> None:
    target = tmp_path / "centralized.db"
    export_sqlite(database, target)

    with sqlite3.connect(target) as copy, sqlite3.connect(tmp_path / "source.db") as source:
        for name in [*TABLES, "alembic_version"]:
            described = f"SELECT name, type, \"notnull\", pk FROM pragma_table_info('{name}') ORDER BY name"
            assert copy.execute(described).fetchall() == source.execute(described).fetchall(), name
        # Missing JSON is NULL, not the text 'null'; present JSON is text that any tool can read.
        assert copy.execute("SELECT count(*) FROM model_responses WHERE judge_scores IS NULL").fetchone() == (1204,)
        (config,) = copy.execute("SELECT config FROM experiments WHERE run_id = 'run-a'").fetchone()
        assert json.loads(config) == _experiment("run-a")["config"]
        indexes = "SELECT name FROM sqlite_master WHERE type = 'index' AND name LIKE 'ix_%' ORDER BY name"
        assert copy.execute(indexes).fetchall() == source.execute(indexes).fetchall() != []


def test_only_the_runs_asked_for(database: Database, tmp_path: Path) -> None:
    counts = export_sqlite(database, tmp_path / "one.db", run_ids=["run-b"])

    assert (counts["experiments"], counts["model_responses"]) == (1, 1203)
    copy = Database(f"sqlite:///{tmp_path / 'one.db'}", connect_timeout_s=5)
    assert {row["run_id"] for row in copy.select(sa.select(TABLES["model_responses"].c.run_id))} == {"run-b"}


def test_an_unknown_run_is_named_and_the_old_file_stays(database: Database, tmp_path: Path) -> None:
    target = tmp_path / "centralized.db"
    target.write_bytes(b"the old one")

    with pytest.raises(InputError, match=r"no run called run-c; it holds run-a, run-b"):
        export_sqlite(database, target, run_ids=["run-c"])

    assert target.read_bytes() == b"the old one"
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_an_orphaned_row_is_refused_and_leaves_nothing(database: Database, tmp_path: Path) -> None:
    from pipeline_common.errors import TransientError

    with sqlite3.connect(tmp_path / "source.db") as source:  # foreign keys are off in a plain connection
        source.execute("DELETE FROM experiments WHERE run_id = 'run-a'")
    target = tmp_path / "centralized.db"

    with pytest.raises(TransientError, match="model_responses row 1 has no experiments"):
        export_sqlite(database, target)

    assert not target.exists()
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_the_same_rows_give_the_same_bytes_and_replace_the_file(database: Database, tmp_path: Path) -> None:
    target = tmp_path / "centralized.db"
    export_sqlite(database, target)
    first = target.read_bytes()

    export_sqlite(database, target)
    assert target.read_bytes() == first

    database.delete_rows("experiments", "run-a")  # cascades to its responses
    assert export_sqlite(database, target)["model_responses"] == 1203


def test_a_database_of_another_schema_is_refused(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'newer.db'}", connect_timeout_s=5)
    database.migrate()
    with database.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))

    with pytest.raises(InputError, match="schema revision 9999"):
        export_sqlite(database, tmp_path / "centralized.db")
