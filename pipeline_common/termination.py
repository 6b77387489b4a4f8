"""SIGTERM: at once by default, or at the next safe point where a stage asks for it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pipeline_common.errors import TerminatedError


class StopSignal:
    """Whether SIGTERM has arrived."""

    def __init__(self) -> None:
        self.requested = False
        self._deferred = False

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

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True
        if not self._deferred:
            raise TerminatedError("stopped by SIGTERM; the same command starts this stage again")
