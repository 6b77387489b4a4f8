"""The whole database as one file that opens in any SQLite tool: `centralized.db`.

The copy is made from one moment of the source (Postgres or SQLite), streamed, checked and only then given its name, so
a reader finds the old file or a complete new one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from pipeline_common.errors import InputError, TransientError
from pipeline_common.tables import metadata

if TYPE_CHECKING:
    from pipeline_common.database import Database

# A response or a configuration is some kilobytes: a batch stays in the low megabytes.
_BATCH_ROWS: Final = 500
_VERSION_TABLE: Final = sa.Table(
    "alembic_version",
    sa.MetaData(),
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


def export_sqlite(database: Database, target: Path, run_ids: Sequence[str] | None = None) -> dict[str, int]:
    """Copy every table (or the rows of some runs) into a new SQLite file.

    Args:
        database: Where to read; its schema must be the one this code writes.
        target: The file to make or to replace.
        run_ids: Only these runs; None = all.

    Returns:
        Table -> number of rows in the file.

    Raises:
        InputError: a run that the database does not hold, or another schema.
        TransientError: the source cannot be read, or the copy is not equal to it.
    """
    database.require_schema()
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(partial)))
    try:
        with _snapshot(database) as source:
            if run_ids is not None:
                _require_runs(source, run_ids, database.shown_url)
            counts = _copy_all(source, engine, database.revision(), run_ids)
        _check_copy(engine, counts, target)
        engine.dispose()
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
        partial.replace(target)
    finally:
        engine.dispose()
        for suffix in ("", "-journal"):
            partial.with_name(partial.name + suffix).unlink(missing_ok=True)
    return counts


@contextmanager
def _snapshot(database: Database) -> Iterator[Connection]:
    """A connection whose reads all see the same moment, whoever writes meanwhile."""
    with database.connect() as connection:
        if database.embedded:
            # Python's sqlite3 opens no transaction for a SELECT; without one each table would be another moment.
            connection.exec_driver_sql("BEGIN")
        else:
            connection.execution_options(isolation_level="REPEATABLE READ")
        yield connection


def _require_runs(source: Connection, run_ids: Sequence[str], shown_url: str) -> None:
    experiments = metadata.tables["experiments"]
    known = set(source.scalars(sa.select(experiments.c.run_id)))
    absent = sorted(set(run_ids) - known)
    if absent:
        raise InputError(
            f"the database {shown_url} holds no run called {', '.join(absent)}; "
            f"it holds {', '.join(sorted(known)) or 'none'}"
        )


def _copy_all(
    source: Connection, engine: Engine, revision: str | None, run_ids: Sequence[str] | None
) -> dict[str, int]:
    counts = {}
    with engine.begin() as sink:
        metadata.create_all(sink)
        _VERSION_TABLE.create(sink)
        sink.execute(sa.insert(_VERSION_TABLE), [{"version_num": revision}])
        for table in metadata.sorted_tables:  # parents before the tables that point at them
            counts[table.name] = _copy_table(source, sink, table, run_ids)
    return counts


def _copy_table(source: Connection, sink: Connection, table: sa.Table, run_ids: Sequence[str] | None) -> int:
    """Copy in primary key order; the number of rows that the source counted.

    Raises:
        TransientError: fewer or more rows came than the source counts.
    """
    chosen = sa.true() if run_ids is None else table.c.run_id.in_(list(run_ids))
    counted = int(source.scalar(sa.select(sa.func.count()).select_from(table).where(chosen)) or 0)
    query = sa.select(table).where(chosen).order_by(*table.primary_key.columns)
    insert = sa.insert(table).values({column.name: _parameter(column) for column in table.columns})
    copied = 0
    for batch in source.execute(query, execution_options={"yield_per": _BATCH_ROWS}).mappings().partitions():
        sink.execute(insert, [{f"new_{name}": value for name, value in row.items()} for row in batch])
        copied += len(batch)
    if copied != counted:
        raise TransientError(
            f"the export read {copied} rows of {table.name}, the database counts {counted}; run it again"
        )
    return counted


def _parameter(column: sa.Column[Any]) -> sa.BindParameter[Any]:
    """A missing JSON value becomes NULL, as in every other column, and not the text `null`."""
    kind = sa.JSON(none_as_null=True) if isinstance(column.type, sa.JSON) else column.type
    return sa.bindparam(f"new_{column.name}", type_=kind)


def _check_copy(engine: Engine, counts: dict[str, int], target: Path) -> None:
    """Read the file back.

    Raises:
        TransientError: it is damaged, refers to rows it does not hold, or holds another number of rows.
    """
    with engine.connect() as connection:
        problems = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA integrity_check") if row[0] != "ok"]
        problems += [
            f"{row[0]} row {row[1]} has no {row[2]}" for row in connection.exec_driver_sql("PRAGMA foreign_key_check")
        ]
        for table in metadata.sorted_tables:
            found = connection.scalar(sa.select(sa.func.count()).select_from(table))
            if found != counts[table.name]:
                problems.append(f"{table.name} holds {found} rows, {counts[table.name]} were written")
    if problems:
        raise TransientError(
            f"the export {target} is damaged: {'; '.join(problems[:5])}; check the disk and run it again"
        )
