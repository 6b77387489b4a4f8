"""Many rows into a table, within the caller's transaction: by COPY on Postgres, by prepared statements in SQLite."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import chain, islice
from typing import Any, Final

import psycopg2
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from pipeline_common.database.rows import Row, storable
from pipeline_common.tables import TABLES

_BATCH_ROWS: Final = 5000
# Below this many rows a statement is quicker than a temporary table.
_COPY_FROM_ROWS: Final = 200
_ESCAPES: Final = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def insert_rows(connection: Connection, table: str, rows: Iterable[Row]) -> None:
    """Insert rows that are not there yet, streamed.

    Raises:
        ValueError: rows with unknown or different columns: our own mistake.
    """
    target, checked = TABLES[table], check_columns(table, rows)
    if connection.dialect.name == "sqlite":
        for batch in in_batches(checked, _BATCH_ROWS):
            connection.execute(sa.insert(target), [storable(row) for row in batch])
        return
    first = next(checked, None)
    if first is not None:
        _copy(connection, target.name, target, list(first), chain([first], checked))


def upsert_rows(connection: Connection, table: str, rows: Sequence[Row]) -> None:
    """Insert rows, or update the given columns of those whose primary key is there; of equal keys the last counts.

    Raises:
        ValueError: rows with unknown or different columns: our own mistake.
    """
    target = TABLES[table]
    keys = [column.name for column in target.primary_key.columns]
    latest = {tuple(row[key] for key in keys): row for row in check_columns(table, rows)}
    columns = list(rows[0])
    changed = [name for name in columns if name not in keys]
    if connection.dialect.name == "postgresql" and len(latest) >= _COPY_FROM_ROWS:
        incoming, listed = f"incoming_{table}", ", ".join(columns)
        # Names of our own schema, no input: nothing to bind.
        connection.exec_driver_sql(
            f"CREATE TEMPORARY TABLE {incoming} ON COMMIT DROP AS SELECT {listed} FROM {table} WITH NO DATA"  # noqa: S608
        )
        _copy(connection, incoming, target, columns, latest.values())
        update = ", ".join(f"{name} = excluded.{name}" for name in changed)
        connection.exec_driver_sql(
            f"INSERT INTO {table} ({listed}) SELECT {listed} FROM {incoming} "  # noqa: S608
            f"ON CONFLICT ({', '.join(keys)}) DO {f'UPDATE SET {update}' if changed else 'NOTHING'}"
        )
        return
    statement = (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(target)
    if changed:
        statement = statement.on_conflict_do_update(
            index_elements=keys, set_={name: statement.excluded[name] for name in changed}
        )
    else:
        statement = statement.on_conflict_do_nothing(index_elements=keys)
    for batch in in_batches(latest.values(), _BATCH_ROWS):
        connection.execute(statement, [storable(row) for row in batch])


def check_columns(table: str, rows: Iterable[Row]) -> Iterator[Row]:
    """Pass the rows on, if they share known columns.

    Raises:
        ValueError: an unknown column, or rows with different ones: our own mistake.
    """
    columns: set[str] | None = None
    for row in rows:
        if columns is None:
            columns = set(row)
            unknown = columns - set(TABLES[table].columns.keys())
            if unknown:
                raise ValueError(f"{table}: rows share known columns; unknown {sorted(unknown)}")
        elif columns != set(row):
            raise ValueError(f"{table}: rows share known columns; {sorted(columns ^ set(row))} are not in every row")
        yield row


def in_batches(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    """Lists of at most `size` rows."""
    source = iter(rows)
    while batch := list(islice(source, size)):
        yield batch


class CopyText:
    """Rows as the text that Postgres' COPY reads, made piece by piece while it reads."""

    def __init__(self, table: sa.Table, columns: Sequence[str], rows: Iterable[Row], dialect: sa.Dialect) -> None:
        processors = [_text_maker(table.c[name].type, dialect) for name in columns]
        self._lines = (
            "\t".join(make(row[name]) for name, make in zip(columns, processors, strict=True)) + "\n" for row in rows
        )
        self._rest = ""
        self.failure: Exception | None = None

    def read(self, size: int = -1) -> str:
        """At least `size` characters unless the rows end; never more than a line beyond."""
        parts, length = [self._rest], len(self._rest)
        while size < 0 or length < size:
            try:
                line = next(self._lines, None)
            except Exception as error:
                # The driver would report it as a statement that somebody cancelled.
                self.failure = error
                raise
            if line is None:
                break
            parts.append(line)
            length += len(line)
        text = "".join(parts)
        cut = len(text) if size < 0 else size
        self._rest = text[cut:]
        return text[:cut]


def _text_maker(kind: sa.types.TypeEngine[Any], dialect: sa.Dialect) -> Callable[[Any], str]:
    bind = kind.dialect_impl(dialect).bind_processor(dialect)

    def make(value: Any) -> str:
        if bind is not None:
            value = bind(value)
        if value is None:
            return "\\N"
        return value.translate(_ESCAPES) if isinstance(value, str) else str(value)

    return make


def _copy(connection: Connection, into: str, target: sa.Table, columns: list[str], rows: Iterable[Row]) -> None:
    text = CopyText(target, columns, (storable(row) for row in rows), connection.dialect)
    with closing(connection.connection.cursor()) as cursor:
        try:
            cursor.copy_expert(f"COPY {into} ({', '.join(columns)}) FROM STDIN", text)
        except psycopg2.Error:
            if text.failure is not None:
                raise text.failure from None
            raise
