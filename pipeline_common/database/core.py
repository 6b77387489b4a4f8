"""One database, Postgres or SQLite: what is asked of it, and how long an absent one is waited for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NoReturn, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_before_delay, wait_exponential_jitter

from pipeline_common.database.address import create_engine, parse_url, redact
from pipeline_common.database.bulk import insert_rows, upsert_rows
from pipeline_common.database.failures import DRIVER_ERRORS, explain_failure, is_passing, original
from pipeline_common.database.rows import Row, storable
from pipeline_common.database.schema import HEAD_REVISION, migrate, read_revision
from pipeline_common.errors import InputError
from pipeline_common.logs import get_logger
from pipeline_common.redaction import scrub
from pipeline_common.tables import TABLES

Result = TypeVar("Result")
_FIRST_WAIT_S: Final = 0.1
_LONGEST_WAIT_S: Final = 5.0
_log = get_logger(__name__)


class Database:
    """One database, opened lazily.

    Args:
        url: Its address.
        connect_timeout_s: For one connection; in SQLite, for another process's lock.
        give_up_after_s: How long something that passes (a server that is away) is tried again; 0 = once.
    """

    def __init__(self, url: str, connect_timeout_s: float, give_up_after_s: float = 0.0) -> None:
        parsed = parse_url(url)
        self.shown_url = redact(url)
        self.connect_arguments: dict[str, Any] = {"timeout": connect_timeout_s}
        self.connect_timeout_s = connect_timeout_s
        self._give_up_after_s = give_up_after_s
        self._user = parsed.username
        hidden = (parsed.password, *(value for key, value in parsed.query.items() if "password" in key.lower()))
        self._secrets = tuple(str(secret) for secret in hidden if secret)
        self.engine = create_engine(parsed, connect_timeout_s)

    @property
    def embedded(self) -> bool:
        """True for SQLite: nobody else migrates it for us."""
        return self.engine.dialect.name == "sqlite"

    def revision(self) -> str | None:
        """The schema revision found, None in an empty database.

        Raises:
            TransientError: the database cannot be reached.
            ConfigError: it lets nobody in with this address.
        """
        return self.transact(read_revision)

    def migrate(self) -> None:
        """Bring the schema to the newest revision; does nothing when it is there.

        Raises:
            InputError: newer code made this database.
            ConfigError: the role may not change the schema.
        """
        found = self.revision()
        if found is not None and found > HEAD_REVISION:
            raise self._wrong_schema(found)
        if found != HEAD_REVISION:
            migrate(self)

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
        raise self._wrong_schema(found)

    def upsert(self, table: str, rows: Sequence[Row], *, patient: bool = True) -> None:
        """Insert rows, or update the given columns of those whose primary key is there; all or none of them.

        Args:
            table: Its name.
            rows: They share their keys.
            patient: False = a database that is away is not waited for.

        Raises:
            ValueError: an unknown table or column: our own mistake.
            TransientError: the database cannot be reached.
        """
        if rows:
            self.transact(lambda connection: upsert_rows(connection, table, rows), patient=patient)

    def replace_run(self, run_id: str, tables: Mapping[str, Callable[[], Iterable[Row]]]) -> None:
        """Put other rows in the place of a run's rows in some tables, in one transaction.

        Args:
            run_id: The run.
            tables: Table -> opens its rows (without `run_id`), again at each attempt.
        """

        def work(connection: Connection) -> None:
            for table, open_rows in tables.items():
                target = TABLES[table]
                connection.execute(sa.delete(target).where(target.c.run_id == run_id))
                rows = ({"run_id": run_id, **row} for row in open_rows())
                insert_rows(connection, table, rows)

        self.transact(work)

    def update_run(self, table: str, run_id: str, values: Row) -> None:
        """Set columns of a run's rows that exist already."""
        target = TABLES[table]
        statement = sa.update(target).where(target.c.run_id == run_id).values(**storable(values))
        self.transact(lambda connection: connection.execute(statement))

    def select(self, statement: sa.Select[Any], *, patient: bool = True) -> list[dict[str, Any]]:
        """Rows of a query as dictionaries."""
        return self.transact(
            lambda connection: [dict(row) for row in connection.execute(statement).mappings()], patient=patient
        )

    def transact(self, work: Callable[[Connection], Result], *, patient: bool = True) -> Result:
        """Do `work` in a transaction of its own; where the database is away, all of it again.

        `work` must be fit to be repeated: a server that dies while it commits does not say whether it has.
        """

        def attempt() -> Result:
            with self.engine.begin() as connection:
                return work(connection)

        return self.retry(attempt, patient=patient)

    def retry(self, attempt: Callable[[], Result], *, patient: bool = True) -> Result:
        """Call `attempt` until it works, fails for good, or `give_up_after_s` is over.

        Raises:
            TransientError: the database could not be used in all that time.
            ConfigError: the address, the password or a privilege is wrong.
        """
        retrying = Retrying(
            retry=retry_if_exception(is_passing),
            stop=stop_before_delay(self._give_up_after_s if patient else 0.0),
            wait=wait_exponential_jitter(multiplier=_FIRST_WAIT_S, max=_LONGEST_WAIT_S, jitter=_FIRST_WAIT_S),
            before_sleep=self._tell_once,
            reraise=True,
        )
        try:
            return retrying(attempt)
        except DRIVER_ERRORS as error:
            self._raise_explained(error)

    def _wrong_schema(self, found: str | None) -> InputError:
        remedy = (
            "use the newer code that made it"
            if found is not None and found > HEAD_REVISION
            else "run the environment stage as the role that owns the schema: it migrates the database"
        )
        return InputError(
            f"the database {self.shown_url} has schema revision {found or 'none'}, this code writes {HEAD_REVISION}; "
            f"{remedy}"
        )

    def _raise_explained(self, error: BaseException) -> NoReturn:
        """Raise a driver's error in a person's words; what is our own mistake stays what it is."""
        explained = explain_failure(error, self.shown_url, self._user, self._secrets)
        if explained is None:
            raise error
        raise explained from error

    def _tell_once(self, state: RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome is not None:
            error = state.outcome.exception()
            assert error is not None, "only failures are tried again"
            said = " ".join(scrub(str(original(error)), self._secrets).split())
            _log.warning(
                "the database %s is away (%s); trying again for %g s", self.shown_url, said, self._give_up_after_s
            )
