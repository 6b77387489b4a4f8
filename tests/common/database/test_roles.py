"""k8s/components/postgres/roles/roles.sql, and what the two roles may do."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace

import pytest
import sqlalchemy as sa

from pipeline_common.database import HEAD_REVISION, Database
from pipeline_common.database.schema import migrate
from pipeline_common.errors import ConfigError, InputError
from pipeline_common.sqlite_export import export_sqlite
from pipeline_common.stages import REPOSITORY
from pipeline_common.tables import TABLES
from tests.common.database.made_rows import RUN, full_metrics, rows_of_every_table
from tests.common.database.made_stage_run import Setting, run, table_rows
from tests.servers.postgres import ODD_PASSWORD

SCRIPTS = REPOSITORY / "k8s" / "components" / "postgres" / "roles"
SQL = (SCRIPTS / "roles.sql").read_text(encoding="utf-8")
PASSWORDS = {"pipeline_owner": "öwn/er@1", "pipeline_writer": "wr%iter#2"}


@pytest.fixture
def roles(empty_postgres):
    """A database with both roles, made as compose.yaml makes them; role -> address."""
    for _ in range(2):
        empty_postgres.execute(SQL)
    server = empty_postgres.server
    done = subprocess.run(
        [SCRIPTS / "set_passwords.sh"],
        env={
            "PATH": f"{server.binaries}:{os.environ['PATH']}",
            **{"PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGPASSWORD": ODD_PASSWORD},
            **{"POSTGRES_USER": "postgres", "POSTGRES_DB": empty_postgres.name, "PGCLIENTENCODING": "UTF8"},
            "PIPELINE_OWNER_PASSWORD": PASSWORDS["pipeline_owner"],
            "PIPELINE_WRITER_PASSWORD": PASSWORDS["pipeline_writer"],
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {role: empty_postgres.url_of(role, password) for role, password in PASSWORDS.items()}


@pytest.fixture
def writer(roles):
    """What the stages use, once the owner has migrated."""
    owner = Database(roles["pipeline_owner"], 5)
    owner.migrate()
    owner.engine.dispose()
    database = Database(roles["pipeline_writer"], 5)
    yield database
    database.engine.dispose()


def test_the_writer_does_all_that_stages_do(writer, tmp_path):
    writer.require_schema()
    writer.migrate()
    for table, rows in rows_of_every_table("r").items():
        writer.upsert(table, rows)
    writer.upsert("training_metrics", [{"run_id": "r", **row} for row in full_metrics(900)])
    writer.replace_run("r", {"training_metrics": lambda: iter(full_metrics(1000))})
    writer.update_run("experiments", "r", {"base_commit": "d"})
    assert export_sqlite(writer, tmp_path / "copy.db")["training_metrics"] == 1000


def test_a_whole_stage_runs_as_the_writer(writer, roles, tmp_path):
    setting = Setting(tmp_path, roles["pipeline_writer"])
    assert run(setting) == 0, setting.log.read_text()
    assert len(table_rows(setting.url)["training_metrics"]) == setting.metrics


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE mine (a int)",
        "ALTER TABLE experiments ADD COLUMN mine int",
        "DROP TABLE training_metrics",
        "TRUNCATE experiments CASCADE",
        "CREATE INDEX mine ON experiments (profile)",
        "CREATE ROLE mine",
    ],
)
def test_the_writer_may_not_change_the_schema(writer, statement):
    with pytest.raises(ConfigError, match=r"the role pipeline_writer may not do this.*postgres/roles/roles\.sql"):
        writer.transact(lambda connection: connection.exec_driver_sql(statement))


def test_the_writer_at_an_old_schema_says_who_has_to_do_what(roles):
    owner, writer = Database(roles["pipeline_owner"], 5), Database(roles["pipeline_writer"], 5)
    with pytest.raises(InputError, match="schema revision none"):
        writer.require_schema()
    migrate(owner, "0001")
    with pytest.raises(
        InputError, match=rf"revision 0001, this code writes {HEAD_REVISION}; run the environment stage"
    ):
        writer.require_schema()
    with pytest.raises(ConfigError, match="the environment stage needs the role that owns the schema"):
        writer.migrate()
    assert owner.revision() == "0001"
    owner.migrate()
    writer.require_schema()
    writer.upsert("experiments", [RUN])
    for database in (owner, writer):
        database.engine.dispose()


def test_environment_as_a_role_without_rights_is_exit_2_with_what_to_do(roles, tmp_path):
    setting = Setting(tmp_path, roles["pipeline_writer"])
    assert run(setting) == 2
    told = setting.log.read_text()
    assert "permission denied for schema public" in told
    assert "k8s/components/postgres/roles/roles.sql" in told
    for password in PASSWORDS.values():
        assert password not in told


def test_a_role_that_may_only_read_is_exit_2(roles, empty_postgres, tmp_path):
    Database(roles["pipeline_owner"], 5).migrate()
    empty_postgres.execute("REVOKE INSERT ON experiments FROM pipeline_writer")
    setting = replace(Setting(tmp_path, roles["pipeline_writer"]), give_up_after_s=5)
    assert run(setting) == 2
    assert "permission denied for table experiments" in setting.log.read_text()


def test_other_roles_stay_out(roles, empty_postgres):
    empty_postgres.execute("DROP ROLE IF EXISTS stranger", "CREATE ROLE stranger LOGIN PASSWORD 'stranger'")
    with pytest.raises(ConfigError, match="permission denied for database"):
        Database(empty_postgres.url_of("stranger", "stranger"), 5).revision()
    assert Database(roles["pipeline_owner"], 5).select(sa.select(sa.literal(1)))
    assert set(TABLES) >= {"experiments"}
