"""The whole database as one file that opens in any SQLite tool: `centralized.db`.

The copy is made from one moment of the source (Postgres or SQLite), streamed, checked and only then given its name, so
a reader finds the old file or a complete new one.
"""

from __future__ import annotations

import errno
import os
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.schema import CreateIndex, CreateTable

from pipeline_common.database.address import dump_json
from pipeline_common.database.schema import read_revision
from pipeline_common.errors import ConfigError, InputError, TransientError
from pipeline_common.sqlite_views import VIEWS
from pipeline_common.tables import metadata

if TYPE_CHECKING:
    from pipeline_common.database import Database

# A response or a configuration is some kilobytes: a batch stays in the low megabytes.
_BATCH_ROWS: Final = 2000
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
        ConfigError: the target cannot be written.
        InputError: a run that the database does not hold, or another schema.
        TransientError: the source cannot be read, or the copy is not equal to it.
    """
    database.require_schema()
    partial = target.with_name(f".{target.name}.{platform.node()}.{os.getpid()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise ConfigError(
            f"{target} cannot be written: {error.filename}: {error.strerror}; give a path this user may write"
        ) from error
    _remove_abandoned(target)
    try:
        # A source that breaks off is read again from its beginning.
        counts = database.retry(lambda: _write_copy(database, partial, target, run_ids))
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return counts


def _write_copy(database: Database, partial: Path, target: Path, run_ids: Sequence[str] | None) -> dict[str, int]:
    partial.unlink(missing_ok=True)
    # Should this process die, the file has no name that anyone reads: neither a journal nor a sync would help anyone.
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(partial)), poolclass=sa.NullPool, json_serializer=dump_json
    )
    sa.event.listen(engine, "connect", _forgo_safety)
    with _snapshot(database) as source:
        if run_ids is not None:
            _require_runs(source, run_ids, database.shown_url)
        counts = _copy_all(source, engine, run_ids)
    _check_copy(engine, counts, target)
    return counts


def _forgo_safety(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA journal_mode=OFF")
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("PRAGMA cache_size=-32000")  # KiB


def _remove_abandoned(target: Path) -> None:
    """Delete what exports of this machine left that were killed."""
    start = f".{target.name}.{platform.node()}."
    for path in target.parent.glob(f"{start}*.partial"):
        number = path.name.removeprefix(start).removesuffix(".partial")
        if number.isdigit() and not _is_alive(int(number)):
            path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def _snapshot(database: Database) -> Iterator[Connection]:
    """A connection whose reads all see the same moment, whoever writes meanwhile."""
    with database.engine.connect() as connection:
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


def _copy_all(source: Connection, engine: Engine, run_ids: Sequence[str] | None) -> dict[str, int]:
    counts = {}
    with engine.begin() as sink:
        for table in metadata.sorted_tables:
            sink.execute(CreateTable(table))
            # A table keeps its indexes in a set, whose order is another one in every process.
            for index in sorted(table.indexes, key=lambda index: str(index.name)):
                sink.execute(CreateIndex(index))
        _VERSION_TABLE.create(sink)
        sink.execute(sa.insert(_VERSION_TABLE), [{"version_num": read_revision(source)}])
        for table in metadata.sorted_tables:  # parents before the tables that point at them
            counts[table.name] = _copy_table(source, sink, table, run_ids)
        for view in VIEWS.values():
            sink.exec_driver_sql(view)
    return counts


def _copy_table(source: Connection, sink: Connection, table: sa.Table, run_ids: Sequence[str] | None) -> int:
    """Copy in primary key order; the number of rows that the source counted.

    Raises:
        TransientError: fewer or more rows came than the source counts.
    """
    chosen = sa.true() if run_ids is None else table.c.run_id.in_(list(run_ids))
    counted = int(source.scalar(sa.select(sa.func.count()).select_from(table).where(chosen)) or 0)
    query = sa.select(table).where(chosen).order_by(*table.primary_key.columns)
    result = source.execute(query, execution_options={"yield_per": _BATCH_ROWS})
    insert = sa.insert(table).compile(dialect=sink.dialect, column_keys=[column.name for column in table.columns])
    with closing(sink.connection.cursor()) as cursor:
        # Straight to the driver: a million rows pass through here.
        cursor.executemany(str(insert), cast(Any, _as_kept(result, table, sink.dialect)))  # it takes any iterable
        copied = cursor.rowcount if counted else 0
    if copied != counted:
        raise TransientError(
            f"the export read {copied} rows of {table.name}, the database counts {counted}; run it again"
        )
    return counted


def _as_kept(rows: Iterable[sa.Row[Any]], table: sa.Table, dialect: sa.Dialect) -> Iterator[Sequence[Any]]:
    """Rows as SQLite keeps them: times and JSON as text, all else as it is."""
    makers: list[tuple[int, Callable[[Any], Any]]] = []
    for place, column in enumerate(table.columns):
        bind = column.type.dialect_impl(dialect).bind_processor(dialect)
        if bind is not None and not isinstance(column.type, sa.Boolean):
            makers.append((place, bind))
    if not makers:
        yield from map(tuple, rows)
        return
    for row in rows:
        values = list(row)
        for place, make in makers:
            values[place] = make(values[place])
        yield values


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
