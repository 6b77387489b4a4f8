"""Progress of long loops: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from pipeline_common.logs import get_logger

_LINE_EVERY_S: Final = 10.0
_BAR_EVERY_S: Final = 0.1
_MIB: Final = 1 << 20
# Less than this is over before anyone has read a line about it.
_SHOWN_FROM_BYTES: Final = 16 * _MIB
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


@contextmanager
def track_bytes(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how many of `total` bytes have moved, and how fast.

    Args:
        what: what is being moved.
        total: bytes.

    Yields:
        Takes the bytes moved since its last call (negative when they were lost); may be called from any thread.
    """
    moved = 0
    lock = threading.Lock()
    began = last = time.monotonic()
    shown = total >= _SHOWN_FROM_BYTES

    def report(count: int) -> None:
        nonlocal moved, last
        with lock:
            moved += count
            now = time.monotonic()
            if not shown or now - last < (_BAR_EVERY_S if advance else _LINE_EVERY_S):
                return
            last = now
            if advance:
                advance(moved)
            else:
                rate = describe_bytes(int(moved / (now - began)))
                _log.info("%s: %s of %s (%s/s)", what, describe_bytes(moved), describe_bytes(total), rate)

    advance: Callable[[int], None] | None = None
    if not (shown and sys.stderr.isatty()):
        yield report
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        advance = lambda done: bar.update(task, completed=done)  # noqa: E731 - a def would declare it anew
        yield report


def describe_bytes(count: int) -> str:
    """A size for people: bytes, KiB, MiB or GiB."""
    for unit, size in (("GiB", 1 << 30), ("MiB", _MIB), ("KiB", 1 << 10)):
        if abs(count) >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
