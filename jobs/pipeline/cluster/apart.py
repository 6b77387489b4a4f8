"""The stores, used from a process of their own.

The orchestrator waits for hours, and the bucket's library would add a third to its memory: it is loaded,
and both stores are connected to, in a forked child that is started when they are needed and ended before a wait.
"""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from jobs.pipeline.machine import Failure
from jobs.pipeline.results import RemoteResults
from pipeline_common.errors import PipelineError, TransientError
from pipeline_common.stages import PlannedStage

_fork = multiprocessing.get_context("fork")


class SeparateResults:
    """`RemoteResults` in a child process; every method is passed on.

    Args:
        open_results: makes the object, in the child.
    """

    def __init__(self, open_results: Callable[[], RemoteResults]) -> None:
        self._open = open_results
        self._child: multiprocessing.process.BaseProcess | None = None
        self._line: Connection[Any, Any] | None = None

    def is_finished(self, planned: PlannedStage) -> bool:
        """See `Results.is_finished`."""
        return bool(self._call("is_finished", planned))

    def reuse(self, planned: PlannedStage) -> bool:
        """See `Results.reuse`."""
        return bool(self._call("reuse", planned))

    def explain_missing(self, planned: PlannedStage) -> str:
        """See `Results.explain_missing`."""
        return str(self._call("explain_missing", planned))

    def record_failure(self, planned: PlannedStage, failure: Failure) -> None:
        """See `Results.record_failure`."""
        self._call("record_failure", planned, failure)

    def begin(self) -> None:
        """See `RemoteResults.begin`."""
        self._call("begin")

    def finish(self, seconds: dict[str, float], total: float) -> int:
        """See `RemoteResults.finish`."""
        return int(self._call("finish", seconds, total))

    def rest(self) -> None:
        """End the child; the next call starts another."""
        if self._line is not None and self._child is not None:
            self._line.close()
            self._child.join()
            self._line = self._child = None

    def _call(self, method: str, *arguments: Any) -> Any:
        if self._line is None:
            self._line, far = _fork.Pipe()
            self._child = _fork.Process(target=_serve, args=(far, self._line, self._open), daemon=True)
            self._child.start()
            far.close()
        try:
            self._line.send((method, arguments))
            kind, answer = self._line.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            self.rest()
            raise TransientError("the process that speaks to the bucket and the database was killed") from error
        if kind == "raised":
            raise answer
        return answer


def _serve(line: Connection[Any, Any], parents_end: Connection[Any, Any], make: Callable[[], RemoteResults]) -> None:
    """Answer calls until the parent closes its end, or dies."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parents_end.close()
    results: RemoteResults | None = None
    while True:
        try:
            method, arguments = line.recv()
        except EOFError:
            return
        try:
            results = make() if results is None else results
            line.send(("returned", getattr(results, method)(*arguments)))
        except PipelineError as error:
            line.send(("raised", error))
        except Exception as error:  # noqa: BLE001 - passed on to the parent, which raises it
            line.send(("raised", RuntimeError("".join(traceback.format_exception(error)))))
