"""Waiting out an outage: a request is made again until nothing has succeeded for a configured time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from pipeline_common.errors import TerminatedError
from pipeline_common.logs import get_logger
from pipeline_common.s3.failures import is_transient

T = TypeVar("T")
_FIRST_WAIT_S: Final = 0.25
_LONGEST_WAIT_S: Final = 5.0
_log = get_logger(__name__)


class Patience:
    """Shared by all requests to one server, from any thread.

    boto3's own retries are for single requests and count attempts; how long an outage is borne is a time.
    """

    def __init__(self, give_up_after_s: float) -> None:
        self._limit_s = give_up_after_s
        self._lock = threading.Lock()
        self._away_since: float | None = None
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End all waiting: the process is about to end."""
        self._stopped.set()

    def resume(self) -> None:
        """Undo `stop`."""
        self._stopped.clear()

    def call(self, work: Callable[[], T]) -> T:
        """The result of `work`, called again while the server is away.

        Raises:
            Exception: what `work` raised, when it is not transient or the time is over.
        """
        from tenacity import Retrying, retry_if_exception, wait_random_exponential

        retrying = Retrying(
            retry=retry_if_exception(self._worth_waiting),
            wait=wait_random_exponential(multiplier=_FIRST_WAIT_S, max=_LONGEST_WAIT_S),
            sleep=self._sleep,
            reraise=True,
        )
        result = retrying(work)
        with self._lock:
            if self._away_since is not None:
                _log.info("the bucket's server answers again after %.0f s", time.monotonic() - self._away_since)
            self._away_since = None
        return result

    def _worth_waiting(self, error: BaseException) -> bool:
        if not is_transient(error) or self._stopped.is_set():
            return False
        with self._lock:
            now = time.monotonic()
            if self._away_since is None:
                self._away_since = now
                _log.warning(
                    "the bucket's server is away (%s); waiting up to %.0f s", type(error).__name__, self._limit_s
                )
            return now - self._away_since < self._limit_s

    def _sleep(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            raise TerminatedError("stopped while waiting for the bucket's server")
