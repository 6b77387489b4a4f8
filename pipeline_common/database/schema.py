"""Bringing a database to the schema this code writes: one process at a time, all or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pipeline_common.errors import TransientError

if TYPE_CHECKING:
    from pipeline_common.database.core import Database

MIGRATIONS: Final = Path(__file__).resolve().parent.parent / "migrations"
HEAD_REVISION: Final = "0003"
# Any number will do, as long as nobody else who shares the database uses it.
_ADVISORY_KEY: Final = 0x616C69676E


def read_revision(connection: Connection) -> str | None:
    """The schema revision found, None in an empty database."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    return None if found is None else str(found)


def migrate(database: Database, target: str = HEAD_REVISION) -> None:
    """Run the migrations that are missing up to `target`, in one transaction.

    A process that finds another one migrating waits for it, and then finds nothing to do.
    """
    if database.embedded:
        _migrate_file(database, target)
    else:
        database.transact(lambda connection: _migrate_server(connection, target))


def _migrate_server(connection: Connection, target: str) -> None:
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_KEY)))
    _upgrade(connection, target)


def _migrate_file(database: Database, target: str) -> None:
    # SQLite rebuilds a table to change it. With foreign keys on, dropping the old one would delete the rows that point
    # at it; and Python's driver must leave the transaction to us, or each statement would be one of its own.
    engine = sa.create_engine(database.engine.url, poolclass=sa.NullPool, connect_args=database.connect_arguments)
    sa.event.listen(engine, "connect", _leave_transactions_alone)
    sa.event.listen(engine, "begin", _begin_immediate)

    def work() -> None:
        with engine.begin() as connection:
            _upgrade(connection, target)
            orphans = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
            if orphans:
                raise TransientError(
                    f"{database.shown_url}: {len(orphans)} rows point at a run that is not there; nothing was changed"
                )

    database.retry(work)


def _upgrade(connection: Connection, target: str) -> None:
    found = read_revision(connection)
    if found == target or (found is not None and found > HEAD_REVISION):
        return
    from alembic import command
    from alembic.config import Config as AlembicConfig

    settings = AlembicConfig()
    settings.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    settings.attributes["connection"] = connection
    command.upgrade(settings, target)


def _leave_transactions_alone(connection: Any, _record: object) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys=OFF")


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
