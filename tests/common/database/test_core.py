from __future__ import annotations

import threading

import pytest
import sqlalchemy as sa

from pipeline_common.config import load_config
from pipeline_common.database import Database, database_url, redact
from pipeline_common.errors import ConfigError, InputError, TransientError
from pipeline_common.tables import TABLES
from tests.common.database.made_rows import HARD_TEXT, RUN, full_metrics, metric, rows_of_every_table


def all_rows(database, table):
    return database.select(sa.select(TABLES[table]).order_by(*TABLES[table].primary_key.columns))


def test_upsert_inserts_then_updates_the_given_columns(database):
    database.upsert("experiments", [RUN])
    database.upsert("training_metrics", [metric(step, float(step)) for step in range(1, 1201)])
    database.upsert("training_metrics", [metric(3, None)])
    rows = all_rows(database, "training_metrics")
    assert len(rows) == 1200
    assert [row["loss"] for row in rows[:4]] == [1.0, 2.0, None, 4.0]
    assert all_rows(database, "experiments")[0]["config"] == RUN["config"]


@pytest.mark.parametrize("count", [2, 500], ids=["by statement", "by COPY"])
def test_of_equal_keys_in_one_upsert_the_last_counts(database, count):
    database.upsert("experiments", [RUN])
    database.upsert("training_metrics", [metric(step, 1.0) for step in range(1, count)] + [metric(1, 2.0)])
    rows = all_rows(database, "training_metrics")
    assert len(rows) == count - 1
    assert rows[0]["loss"] == 2.0


def test_every_value_comes_back_as_it_was(database):
    """Bit by bit for numbers; times in UTC; only NUL, which Postgres cannot keep, as its symbol."""
    wanted = rows_of_every_table("r")
    for table, rows in wanted.items():
        database.upsert(table, rows)
    for table, rows in wanted.items():
        found = all_rows(database, table)
        assert len(found) == len(rows)
        for got, row in zip(found, rows, strict=True):
            for name, value in row.items():
                if value == HARD_TEXT:
                    assert got[name] == HARD_TEXT.replace("\x00", "␀")
                elif name.endswith("_at"):
                    assert got[name].isoformat(timespec="milliseconds") in {value, "2026-01-01T00:00:00.999+00:00"}
                    assert got[name].utcoffset().total_seconds() == 0
                else:
                    assert got[name] == value, (table, name)


def test_replacing_a_runs_rows_leaves_others_and_is_all_or_nothing(database):
    database.upsert("experiments", [RUN, {**RUN, "run_id": "other"}])
    rows = full_metrics(6000)
    database.upsert("training_metrics", [metric(9999, 1.0), metric(9999, 1.0, "other")])
    for _ in range(2):
        database.replace_run("r", {"training_metrics": lambda: iter(rows)})
    found = all_rows(database, "training_metrics")
    assert found[0]["run_id"] == "other"
    assert [{key: value for key, value in row.items() if key != "run_id"} for row in found[1:]] == rows

    def fail():
        yield from rows[:5500]
        raise RuntimeError("the file ends here")

    with pytest.raises(RuntimeError):
        database.replace_run("r", {"training_metrics": fail})
    assert all_rows(database, "training_metrics") == found


def test_an_artifact_without_rows_empties_its_table(database):
    database.upsert("experiments", [RUN])
    database.upsert("training_metrics", [metric(1, 1.0)])
    database.replace_run("r", {"training_metrics": lambda: iter(())})
    assert all_rows(database, "training_metrics") == []


def test_rows_need_their_run(database):
    with pytest.raises(sa.exc.IntegrityError):
        database.upsert("training_metrics", [metric(1, 1.0)])


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("training_metrics", {"step": 0}),
        ("training_metrics", {"split": "test"}),
        ("training_metrics", {"grad_norm": -1.0}),
        ("stage_runs", {"attempt": 0}),
        ("stage_runs", {"state": "lost"}),
        ("stage_runs", {"artifact": None}),
        ("stage_runs", {"exit_code": 256}),
        ("aqi_scores", {"n_safe": -1}),
        ("model_responses", {"model_role": "judge"}),
        ("model_responses", {"response": None}),
    ],
)
def test_what_cannot_be_is_refused(database, table, change):
    rows = rows_of_every_table("r")
    database.upsert("experiments", rows["experiments"])
    with pytest.raises(sa.exc.IntegrityError):
        database.upsert(table, [{**rows[table][0], **change}])
    database.upsert(table, [rows[table][0]])


def test_unknown_and_uneven_columns_are_our_own_mistake(database):
    with pytest.raises(ValueError, match="colour"):
        database.upsert("experiments", [{**RUN, "colour": 1}])
    with pytest.raises(ValueError, match="not in every row"):
        database.upsert("training_metrics", [metric(1, 1.0), {**metric(2, 1.0), "grad_norm": 1.0}])


def test_a_time_without_its_zone_is_our_own_mistake(database):
    with pytest.raises(sa.exc.StatementError, match="no time zone"):
        database.upsert("experiments", [{**RUN, "created_at": "2026-01-01T00:00:00"}])


def test_another_schema_is_refused_with_what_to_do(database):
    database.transact(lambda connection: connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'")))
    for ask in (database.require_schema, database.migrate):
        with pytest.raises(InputError, match=r"schema revision 9999, this code writes .*; use the newer code"):
            ask()


def test_an_embedded_database_that_another_process_writes_is_waited_for(tmp_path):
    url = f"sqlite:///{tmp_path}/results.db"
    Database(url, 5).migrate()
    patient, other = Database(url, 0.05, give_up_after_s=20), Database(url, 5)
    started, release = threading.Event(), threading.Event()

    def hold(connection):
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = version_num")
        started.set()
        assert release.wait(60)

    writer = threading.Thread(target=other.transact, args=(hold,))
    writer.start()
    assert started.wait(60)
    waiting = threading.Thread(target=patient.upsert, args=("experiments", [RUN]))
    waiting.start()
    waiting.join(0.5)
    assert waiting.is_alive()
    release.set()
    waiting.join(60)
    writer.join()
    assert [row["run_id"] for row in other.select(sa.select(TABLES["experiments"]))] == [RUN["run_id"]]


def test_a_password_is_never_shown():
    secret = "p@ss/w:rd?#&%"
    url = sa.engine.URL.create("postgresql+psycopg2", "user", secret, "127.0.0.1", 1, "db")
    database = Database(url.render_as_string(hide_password=False), 1)
    with pytest.raises(TransientError, match="DATABASE_URL") as caught:
        database.revision()
    for shown in (database.shown_url, str(caught.value), redact(url.render_as_string(hide_password=False))):
        assert secret not in shown
        assert "p%40ss" not in shown
    assert "hunter2" not in redact("postgresql+psycopg2://u@h/d?sslpassword=hunter2&sslmode=require")


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "mysql://u:hunter2@h/d",
        "postgresql+asyncpg://u:hunter2@h/d",
        "postgresql+psycopg2://u:hunter2@hunter2@h:5432/d",
        "postgresql+psycopg2://u:hunter2/hunter2@h:5432/d",
        "postgresql+psycopg2://u:a#hunter2@h/d",
        "postgresql+psycopg2://u:pw@h:hunter2/d",
    ],
)
def test_an_unusable_address_is_refused_without_repeating_it(url):
    with pytest.raises(ConfigError, match="DATABASE_URL") as caught:
        Database(url, 1)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_short_form_of_an_address_uses_the_drivers_we_ship(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:pw@h/d")
    assert Database(database_url(load_config("tiny")), 1).engine.dialect.driver == "psycopg2"
