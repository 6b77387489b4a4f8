"""Progress of transfers: how much has moved and how fast, a live bar on a terminal, log lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from pipeline_common.logs import get_logger
from pipeline_common.progress import LINE_EVERY_S
from pipeline_common.quantities import describe_bytes

_BAR_EVERY_S: Final = 0.1
# Less than this is over before anyone has read a line about it.
_SHOWN_FROM_BYTES: Final = 16 << 20
_log = get_logger(__name__)


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
            if not shown or now - last < (_BAR_EVERY_S if advance else LINE_EVERY_S):
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
