"""What the drivers' errors are taken for, where no test makes a server say them."""

from __future__ import annotations

import psycopg2
import pytest
import sqlalchemy as sa

from pipeline_common.database import Database
from pipeline_common.database.failures import explain_failure, is_passing
from pipeline_common.errors import ConfigError, InputError, TransientError
from pipeline_common.tables import TABLES
from tests.common.database.made_rows import RUN, metric


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (psycopg2.OperationalError("could not translate host name"), True),
        (psycopg2.OperationalError("server closed the connection unexpectedly"), True),
        (psycopg2.DatabaseError("SSL SYSCALL error: EOF detected"), True),
        (psycopg2.InterfaceError("connection already closed"), True),
        (psycopg2.ProgrammingError("can't adapt type 'dict'"), False),
        (psycopg2.OperationalError('FATAL:  password authentication failed for user "u"'), False),
        (psycopg2.OperationalError('FATAL:  database "d" does not exist'), False),
        (psycopg2.OperationalError("server does not support SSL, but SSL was required"), False),
        (ValueError("x"), False),
    ],
)
def test_what_passes_by_itself(error, passing):
    assert is_passing(error) is passing


def test_a_deadlock_and_a_lack_of_connections_pass(empty_postgres):
    for state in ("40P01", "53300", "57P03", "08006"):
        with pytest.raises(psycopg2.Error) as caught:
            empty_postgres.execute(f"DO $$ BEGIN RAISE EXCEPTION 'made' USING ERRCODE = '{state}'; END $$")
        assert is_passing(caught.value), state
    with pytest.raises(psycopg2.Error) as caught:
        empty_postgres.execute("SELECT 1 / 0")
    assert not is_passing(caught.value)
    assert explain_failure(caught.value, "shown", "u", ()) is None


def test_a_read_only_role_setting_is_waited_for_like_a_standby(migrated_postgres):
    """A standby that is being promoted says the same."""
    database = Database(f"{migrated_postgres.url}?options=-cdefault_transaction_read_only%3Don", 5)
    with pytest.raises(TransientError, match="read-only transaction"):
        database.upsert("experiments", [RUN])


def test_a_file_that_is_no_database_or_damaged_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("not a database, " * 100)
    with pytest.raises(ConfigError, match="is something else"):
        Database(f"sqlite:///{tmp_path}/notes.txt", 1).revision()
    path = tmp_path / "results.db"
    database = Database(f"sqlite:///{path}", 1)
    database.migrate()
    database.upsert("experiments", [RUN])
    database.upsert("training_metrics", [metric(step, 1.0) for step in range(1, 3000)])
    database.engine.dispose()
    content = bytearray(path.read_bytes())
    content[3 * 4096 :] = b"\xff" * (len(content) - 3 * 4096)
    path.write_bytes(content)
    with pytest.raises(InputError, match="move it away and run the pipeline again"):
        Database(f"sqlite:///{path}", 1).select(sa.select(TABLES["training_metrics"]))


def test_a_folder_that_cannot_be_written_is_exit_2(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="give a path this user may write"):
        Database(f"sqlite:///{tmp_path}/folder", 1).migrate()
