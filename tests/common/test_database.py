from __future__ import annotations

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from pipeline_common.database import HEAD_REVISION, MIGRATIONS, Database, redact
from pipeline_common.errors import ConfigError, InputError, TransientError
from pipeline_common.tables import TABLES, metadata

RUN = {
    "run_id": "r",
    "profile": "tiny",
    "created_at": "2026-01-01T00:00:00.000+00:00",
    "base_model": "embedded",
    "dataset": "d",
    "prompts": "p",
    "config": {"a": [1, 2]},
}


@pytest.fixture
def database(tmp_path):
    made = Database(f"sqlite:///{tmp_path}/results.db", 5)
    made.migrate()
    return made


def metric(step: int, loss: float | None) -> dict[str, object]:
    return {"run_id": "r", "split": "train", "step": step, "epoch": step / 10, "loss": loss}


def test_the_migrations_make_exactly_the_tables_of_the_code(database):
    with database.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    assert database.revision() == HEAD_REVISION
    assert {"experiments", "training_metrics", "aqi_scores", "model_responses", "evaluation_summary"} <= set(TABLES)


def test_the_head_revision_of_the_code_is_the_newest_migration():
    newest = sorted(path.name for path in (MIGRATIONS / "versions").glob("*.py"))[-1]
    assert newest.startswith(f"{HEAD_REVISION}_")


def test_migrating_again_changes_nothing(database):
    database.upsert("experiments", [RUN])
    database.migrate()
    assert len(database.select(sa.select(TABLES["experiments"]))) == 1


def test_upsert_inserts_then_updates_the_given_columns(database):
    database.upsert("experiments", [RUN])
    database.upsert("training_metrics", [metric(step, float(step)) for step in range(1, 1201)])
    database.upsert("training_metrics", [metric(3, None)])
    rows = database.select(sa.select(TABLES["training_metrics"]).order_by(sa.text("step")))
    assert len(rows) == 1200
    assert [row["loss"] for row in rows[:4]] == [1.0, 2.0, None, 4.0]
    assert database.select(sa.select(TABLES["experiments"].c.config))[0]["config"] == {"a": [1, 2]}


def test_rows_need_their_run(database):
    with pytest.raises(sa.exc.IntegrityError):
        database.upsert("training_metrics", [metric(1, 1.0)])


def test_unknown_columns_are_our_own_mistake(database):
    with pytest.raises(ValueError, match="colour"):
        database.upsert("experiments", [{**RUN, "colour": 1}])


def test_another_schema_is_refused_with_what_to_do(database):
    with database.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(InputError, match="schema revision 9999, this code writes"):
        database.require_schema()


def test_a_password_is_never_shown():
    secret = "p@ss/w:rd?#&%"
    url = sa.engine.URL.create("postgresql+psycopg2", "user", secret, "127.0.0.1", 1, "db")
    database = Database(url.render_as_string(hide_password=False), 1)
    with pytest.raises(TransientError, match="DATABASE_URL") as caught:
        database.revision()
    for shown in (database.shown_url, str(caught.value), redact(url.render_as_string(hide_password=False))):
        assert secret not in shown
        assert "p%40ss" not in shown


@pytest.mark.parametrize("url", ["nonsense", "mysql://u:hunter2@h/d"])
def test_an_unusable_address_is_refused_without_repeating_it(url):
    with pytest.raises(ConfigError) as caught:
        Database(url, 1)
    assert "hunter2" not in str(caught.value)
