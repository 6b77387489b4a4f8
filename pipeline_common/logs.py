"""Logging: everything into the stage's own file, what matters to the console."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

from pipeline_common.redaction import environment_secrets, scrub

LOGGER_NAME = "alignment_check"


def get_logger(name: str) -> logging.Logger:
    """A logger below the project's own, for `get_logger(__name__)`."""
    return logging.getLogger(f"{LOGGER_NAME}.{name}")


def start_console(level: str, stage: str) -> None:
    """Send the project's records of `level` and above to stderr, each led by the stage's name."""
    logger = logging.getLogger(LOGGER_NAME)
    logger.setLevel(logging.DEBUG)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    console = logging.StreamHandler(sys.stderr)
    console.setLevel(level.upper())
    console.setFormatter(_ConsoleFormatter(stage))
    logger.addHandler(console)


def start_file(path: Path) -> logging.Handler:
    """Append every record of the project and every warning of a library to `path` (UTC times)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setLevel(logging.DEBUG)
    formatter = _FileFormatter("%(asctime)sZ %(levelname)-7s %(name)s: %(message)s")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    # On the root: libraries' warnings belong in the file, where they can be looked up, and not on the console.
    logging.captureWarnings(capture=True)
    logging.getLogger().addHandler(handler)
    logging.getLogger(LOGGER_NAME).setLevel(logging.DEBUG)
    return handler


def stop_file(handler: logging.Handler) -> None:
    """Close a handler that `start_file` opened."""
    logging.getLogger().removeHandler(handler)
    handler.close()


class _FileFormatter(logging.Formatter):
    """Also of a traceback, only what may be told."""

    def format(self, record: logging.LogRecord) -> str:
        return scrub(super().format(record), environment_secrets())


class _ConsoleFormatter(logging.Formatter):
    """`train        message`; warnings and errors say so."""

    def __init__(self, stage: str) -> None:
        super().__init__()
        self._stage = stage

    def format(self, record: logging.LogRecord) -> str:
        mark = "" if record.levelno < logging.WARNING else f"{record.levelname}: "
        return f"{self._stage:<12} {mark}{scrub(record.getMessage(), environment_secrets())}"
