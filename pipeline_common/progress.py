"""Progress of long loops: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from pipeline_common.logs import get_logger

_LINE_EVERY_S: Final = 10.0
_log = get_logger(__name__)


class Advance(Protocol):
    """What a loop calls once per step."""

    def __call__(self, done: int, note: str = "") -> None:
        """`done` of the total are finished; `note` is shown beside it."""


@contextmanager
def track(what: str, total: int) -> Iterator[Advance]:
    """Show how far a loop of `total` steps has come.

    Args:
        what: what is being done, in a few words.
        total: number of steps.
    """
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        note_column = TextColumn("{task.fields[note]}")
        with Progress(*columns, note_column, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=total, note="")

            def advance(done: int, note: str = "") -> None:
                bar.update(task, completed=done, note=note)

            yield advance
        return
    last = time.monotonic()

    def report(done: int, note: str = "") -> None:
        nonlocal last
        if time.monotonic() - last >= _LINE_EVERY_S:
            last = time.monotonic()
            _log.info("%s: %d of %d%s", what, done, total, f" ({note})" if note else "")

    yield report
