"""The scratch folder of a stage that runs: who may use it, which attempt it is, what of an earlier one stays."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline_common.logs import get_logger

LOG_FILE = "logs/stage.log"
_log = get_logger(__name__)


def count_attempt(work_dir: Path) -> int:
    """The number of the attempt that begins here, kept for the next one."""
    work_dir.mkdir(parents=True, exist_ok=True)
    counter = work_dir / "attempt"
    attempt = int(counter.read_text()) + 1 if counter.exists() else 1
    partial = counter.with_name("attempt.partial")
    partial.write_text(str(attempt))
    partial.replace(counter)
    return attempt


def clear_files(files: Path) -> None:
    """Start with an empty folder, but keep the log of earlier attempts."""
    files.mkdir(parents=True, exist_ok=True)
    for entry in files.iterdir():
        if entry.name != Path(LOG_FILE).parts[0]:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


@contextmanager
def only_one(lock: Path) -> Iterator[None]:
    """Hold the lock of one artifact; the kernel releases it when the process dies."""
    with lock.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("another process is making %s; waiting for it", lock.stem)
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
