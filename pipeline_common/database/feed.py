"""Rows on their way to the database while a stage runs: sent in batches by a thread, kept through an outage.

The stage is never stopped or slowed down by the database. What has not arrived when the stage ends is no loss: its rows
are then written from the artifact, all of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final

from pipeline_common.database.lock import LockLostError
from pipeline_common.database.rows import Row
from pipeline_common.errors import PipelineError, TransientError
from pipeline_common.logs import get_logger

_SEND_EVERY_S: Final = 1.0
_LONGEST_WAIT_S: Final = 10.0
_log = get_logger(__name__)


class RowFeed:
    """A queue of rows and the thread that sends them.

    Args:
        send: Takes a batch; raises when the database is away. Called by the thread alone.
        every_s: Pause between batches.
    """

    def __init__(self, send: Callable[[Sequence[Row]], None], every_s: float = _SEND_EVERY_S) -> None:
        self._send = send
        self._every_s = every_s
        self._waiting: list[Row] = []
        self._changed = threading.Condition()
        self._closing = False
        # A daemon: a statement that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name="row feed", daemon=True)
        self._thread.start()

    def add(self, rows: Sequence[Row]) -> None:
        """Queue rows; returns at once."""
        with self._changed:
            self._waiting.extend(rows)

    def close(self, timeout_s: float) -> None:
        """Send what waits, once, and end the thread; no statement begins after this."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)

    def _work(self) -> None:
        pause_s, away = self._every_s, False
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing, timeout=pause_s)
                closing, batch = self._closing, self._waiting
                self._waiting = []
            if batch:
                try:
                    self._send(batch)
                except LockLostError as error:
                    _log.warning("no more rows are sent: %s", error)
                    return
                except TransientError as error:
                    with self._changed:
                        self._waiting = batch + self._waiting
                    if not away:
                        _log.warning("rows wait until the database is back: %s", error)
                    pause_s, away = min(2 * pause_s, _LONGEST_WAIT_S), True
                except PipelineError as error:
                    _log.warning("rows will be written at the end of the stage: %s", error)
                    return
                else:
                    if away:
                        _log.info("the database is back: %d rows sent", len(batch))
                    pause_s, away = self._every_s, False
            if closing:
                return
