"""SIGTERM: at once by default, or at the next safe point where a stage asks for it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from pipeline_common.errors import TerminatedError

_STOPPED: Final = "stopped by SIGTERM; the same command starts this stage again"


class StopSignal:
    """Whether SIGTERM has arrived."""

    def __init__(self) -> None:
        self.requested = False
        self._deferred = False
        self._raised = False

    def install(self) -> None:
        """Handle SIGTERM from now on (main thread only)."""
        signal.signal(signal.SIGTERM, self._handle)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside, SIGTERM only sets `requested`: the stage looks, saves its state and raises `TerminatedError`."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def heed(self) -> None:
        """End here if SIGTERM has arrived outside `deferred` and what it raised was caught: by a library, say.

        Raises:
            TerminatedError: it has.
        """
        if self._raised and not self._deferred:
            raise TerminatedError(_STOPPED)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True
        self._raised = self._raised or not self._deferred
        self.heed()
