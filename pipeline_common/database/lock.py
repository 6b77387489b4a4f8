"""One writer for each stage of each run, and for each artifact; a dead process lets go by itself."""

from __future__ import annotations

import fcntl
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, Protocol

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from pipeline_common.database.core import Database
from pipeline_common.database.failures import DRIVER_ERRORS
from pipeline_common.errors import TransientError
from pipeline_common.logs import get_logger

_LOOK_EVERY_S: Final = 0.5
_log = get_logger(__name__)


class LockLostError(TransientError):
    """Another process has taken over; this one may write nothing any more, not even that it failed."""


class Holder(Protocol):
    """What a lock is made of."""

    sessions: int
    """How often it had to be taken anew."""

    def take(self) -> bool:
        """True when the lock is ours, now or already."""

    def release(self, *, at_once: bool = False) -> None:
        """Let go; `at_once`: nobody may find it held after this, where otherwise a server may take its moment."""


class StageLock:
    """The right to write the rows of one stage of one run.

    Args:
        title: What is locked, in words.
        holder: Holds it.
    """

    def __init__(self, title: str, holder: Holder) -> None:
        self._title = title
        self._holder = holder
        self._sessions = 0

    def wait(self) -> None:
        """Wait until no other process has it."""
        told = False
        while not self._holder.take():
            if not told:
                _log.info("another process works on %s; waiting for it", self._title)
                told = True
            time.sleep(_LOOK_EVERY_S)
        self._sessions = self._holder.sessions

    def require(self, is_unchanged: Callable[[], bool]) -> None:
        """Make sure that it is still ours; where the database was restarted meanwhile, take it again.

        Args:
            is_unchanged: Whether the stage's row is as this attempt left it; asked after the lock was lost and
                regained, when another process may have had it in between.

        Raises:
            LockLostError: another process has taken over.
            TransientError: the database cannot be reached.
        """
        ours = self._holder.take()
        if ours and self._holder.sessions != self._sessions:
            _log.warning("the connection that held the lock on %s was lost; it is regained", self._title)
            self._sessions = self._holder.sessions
            ours = is_unchanged()
        if not ours:
            raise LockLostError(
                f"the connection that held the lock on {self._title} was lost, and another process took over; "
                "nothing of this attempt was published, the same command waits for the other and uses its result"
            )


@contextmanager
def hold_stage(database: Database, run_id: str, stage: str, artifact: str = "") -> Iterator[StageLock]:
    """Hold the lock of a stage of a run, and of the artifact it makes; waits while another process has either.

    Two runs may need the same artifact at once: the second waits, and finds it finished.

    On Postgres it is an advisory lock of a session: a connection of its own, open as long as the stage runs (through
    PgBouncer it needs session pooling). On SQLite it is a byte of a lock file beside the database.

    Raises:
        TransientError: the database cannot be reached.
    """
    holder = _make_holder(database, run_id, stage, artifact)
    try:
        lock = StageLock(f"{stage} of run {run_id}", holder)
        lock.wait()
        yield lock
    finally:
        holder.release()


@contextmanager
def try_stage(database: Database, run_id: str, stage: str, artifact: str) -> Iterator[bool]:
    """Hold the same lock if no other process has it; whether it is ours. Nobody is waited for.

    Raises:
        TransientError: the database cannot be reached.
    """
    holder = _make_holder(database, run_id, stage, artifact)
    try:
        yield holder.take()
    finally:
        holder.release(at_once=True)


def _make_holder(database: Database, run_id: str, stage: str, artifact: str) -> Holder:
    # In this order everywhere, so that no two processes wait for each other.
    keys = (lock_key(run_id, stage), *([lock_key("artifact", artifact)] if artifact else []))
    return _FileHolder(database, keys) if database.embedded else _SessionHolder(database, keys)


def lock_key(run_id: str, stage: str) -> int:
    """64 bits, signed, as Postgres takes them."""
    digest = hashlib.sha256(f"{run_id}/{stage}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


class _SessionHolder:
    """A session of the server that holds advisory locks."""

    def __init__(self, database: Database, keys: Sequence[int]) -> None:
        self.sessions = 0
        self._database = database
        self._keys = keys
        self._connection: Connection | None = None

    def take(self) -> bool:
        """True when the locks are this session's, now or already."""
        return self._database.retry(self._ask)

    def release(self, *, at_once: bool = False) -> None:
        if self._connection is not None and at_once:
            self._connection.execute(sa.select(sa.func.pg_advisory_unlock_all()))
        if self._connection is not None:
            # Closed for good, not returned to the pool: the session's end is what releases the lock.
            self._connection.invalidate()
            self._connection.close()
        self._connection = None

    def _ask(self) -> bool:
        try:
            if self._connection is None:
                # Nothing of the session may stay open: an idle transaction would keep the server from cleaning up.
                self._connection = self._database.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
                self.sessions += 1
            # Asked again by its holder it answers true, and the session's end releases it however often it was taken.
            connection = self._connection
            return all(connection.scalar(sa.select(sa.func.pg_try_advisory_lock(key))) for key in self._keys)
        except DRIVER_ERRORS:
            self.release()
            raise


class _FileHolder:
    """Bytes of a file, locked; the kernel releases them when the process dies."""

    def __init__(self, database: Database, keys: Sequence[int]) -> None:
        self.sessions = 1
        name = database.engine.url.database
        self._path = Path(name).with_name(f".{Path(name).name}.lock") if name else None
        self._offsets = [key & 0x3FFF_FFFF_FFFF_FFFF for key in keys]
        self._stream: IO[bytes] | None = None

    def take(self) -> bool:
        if self._path is None:
            return True  # in memory: nobody else can see it
        if self._stream is None:
            self._stream = self._path.open("ab")
        try:
            for offset in self._offsets:
                fcntl.lockf(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def release(self, *, at_once: bool = False) -> None:
        del at_once  # the kernel releases at once
        if self._stream is not None:
            self._stream.close()
        self._stream = None
