"""Results in a database: SQLAlchemy Core over Postgres (`DATABASE_URL`) or an embedded SQLite file.

Every write is an upsert by primary key, so a stage may run twice.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, OperationalError

from pipeline_common.errors import ConfigError, InputError, TransientError
from pipeline_common.tables import TABLES, metadata

if TYPE_CHECKING:
    from pipeline_common.config import Config

MIGRATIONS: Final = Path(__file__).parent / "migrations"
HEAD_REVISION: Final = "0001"
# SQLite allows 32,766 bound values in a statement; the widest table has 40 columns.
_ROWS_PER_STATEMENT: Final = 500


def database_url(config: Config) -> str:
    """`DATABASE_URL`, else the SQLite file `results.db` in the output folder."""
    default = Path(config.runtime.output_dir).expanduser().resolve() / "results.db"
    return os.environ.get("DATABASE_URL") or f"sqlite:///{default}"


def redact(url: str) -> str:
    """The URL without its password, fit to be shown."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return "(unreadable database URL)"


class Database:
    """One database, opened lazily."""

    def __init__(self, url: str, connect_timeout_s: float) -> None:
        self.shown_url = redact(url)
        self.engine = _create_engine(url, connect_timeout_s)

    @property
    def embedded(self) -> bool:
        """True for SQLite: nobody else migrates it for us."""
        return self.engine.dialect.name == "sqlite"

    def revision(self) -> str | None:
        """The schema revision found, None in an empty database.

        Raises:
            TransientError: the database cannot be reached.
        """
        with self.connect() as connection:
            if not sa.inspect(connection).has_table("alembic_version"):
                return None
            found = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
            return None if found is None else str(found)

    def migrate(self) -> None:
        """Bring the schema to the newest revision; does nothing when it is there."""
        if self.revision() == HEAD_REVISION:
            return
        from alembic import command
        from alembic.config import Config as AlembicConfig

        settings = AlembicConfig()
        settings.set_main_option("script_location", str(MIGRATIONS))
        with self.begin() as connection:
            settings.attributes["connection"] = connection
            command.upgrade(settings, "head")

    def require_schema(self) -> None:
        """Check that the schema is the one this code writes; the embedded database is brought there.

        Raises:
            InputError: another schema; the message says what to run.
        """
        found = self.revision()
        if found == HEAD_REVISION:
            return
        if self.embedded and (found is None or found < HEAD_REVISION):
            self.migrate()
            return
        raise InputError(
            f"the database {self.shown_url} has schema revision {found or 'none'}, this code writes {HEAD_REVISION}; "
            "run the environment stage, which migrates it (or use the code that made it)"
        )

    def upsert(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows, or update the given columns of those whose primary key is there.

        Rows of one call must share their keys.

        Raises:
            ValueError: an unknown table or column: our own mistake.
            TransientError: the database cannot be reached.
        """
        if not rows:
            return
        target = TABLES[table]
        keys = [column.name for column in target.primary_key.columns]
        unknown = set(rows[0]) - set(target.columns.keys())
        if unknown or any(set(row) != set(rows[0]) for row in rows):
            raise ValueError(f"{table}: rows of one upsert share known columns; unknown {sorted(unknown)}")
        dialect = sqlite if self.embedded else postgresql
        with self.begin() as connection:
            for start in range(0, len(rows), _ROWS_PER_STATEMENT):
                statement = dialect.insert(target).values(
                    [dict(row) for row in rows[start : start + _ROWS_PER_STATEMENT]]
                )
                changed = {name: statement.excluded[name] for name in rows[0] if name not in keys}
                connection.execute(
                    statement.on_conflict_do_update(index_elements=keys, set_=changed)
                    if changed
                    else statement.on_conflict_do_nothing(index_elements=keys)
                )

    def update_run(self, table: str, run_id: str, values: Mapping[str, Any]) -> None:
        """Set columns of a run's rows that exist already."""
        target = TABLES[table]
        with self.begin() as connection:
            connection.execute(sa.update(target).where(target.c.run_id == run_id).values(**values))

    def delete_rows(self, table: str, run_id: str) -> None:
        """Remove a run's rows of one table, so that a repeated stage leaves none of the earlier ones behind."""
        target = TABLES[table]
        with self.begin() as connection:
            connection.execute(sa.delete(target).where(target.c.run_id == run_id))

    def select(self, statement: sa.Select[Any]) -> list[dict[str, Any]]:
        """Rows of a query as dictionaries."""
        with self.connect() as connection:
            return [dict(row) for row in connection.execute(statement).mappings()]

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """A connection; failures name the database without its password."""
        try:
            with self.engine.connect() as connection:
                yield connection
        except OperationalError as error:
            raise self._explain(error) from error

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A connection inside a transaction."""
        try:
            with self.engine.begin() as connection:
                yield connection
        except OperationalError as error:
            raise self._explain(error) from error

    def _explain(self, error: OperationalError) -> TransientError:
        return TransientError(
            f"the database {self.shown_url} cannot be used: {str(error.orig).strip()}; check DATABASE_URL, that the "
            "server answers, and that its disk has room"
        )


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a JSON Lines file."""
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as JSON Lines; NaN and infinity are refused, None stays null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as stream:
        for row in rows:
            stream.write(json.dumps(row, allow_nan=False, ensure_ascii=False) + "\n")


def _create_engine(url: str, connect_timeout_s: float) -> Engine:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigError(
            "DATABASE_URL is not a database URL; expected postgresql+psycopg2://user:password@host:5432/name "
            "or sqlite:////absolute/path.db"
        ) from error
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        if parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(parsed, connect_args={"timeout": connect_timeout_s})
        sa.event.listen(engine, "connect", _enforce_foreign_keys)
        return engine
    if backend == "postgresql":
        return sa.create_engine(
            parsed, connect_args={"connect_timeout": max(1, round(connect_timeout_s))}, pool_pre_ping=True
        )
    raise ConfigError(f"DATABASE_URL names {backend!r}; expected postgresql+psycopg2:// or sqlite:///")


def _enforce_foreign_keys(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA foreign_keys=ON")


__all__ = ["Database", "database_url", "metadata", "read_rows", "redact", "write_rows"]
