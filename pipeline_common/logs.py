"""Logging: everything into the stage's own file, what matters to the console.

The console has text for people, or with `LOG_FORMAT=json` one JSON object per line: the project's records, warnings of
libraries, whatever is written to stderr from Python, and the last line of a failure.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Final, Literal, TextIO

from pipeline_common.errors import ConfigError
from pipeline_common.json_logs import JsonFormatter, LineStream, encode_line
from pipeline_common.redaction import environment_secrets, scrub

LOGGER_NAME: Final = "alignment_check"
FORMAT_VARIABLE: Final = "LOG_FORMAT"


def get_logger(name: str) -> logging.Logger:
    """A logger below the project's own, for `get_logger(__name__)`."""
    return logging.getLogger(f"{LOGGER_NAME}.{name}")


def log_format() -> Literal["text", "json"]:
    """What the console is written in: `LOG_FORMAT`, or text.

    Raises:
        ConfigError: another value.
    """
    wanted = os.environ.get(FORMAT_VARIABLE, "").strip().lower()
    if wanted in {"", "text"}:
        return "text"
    if wanted == "json":
        return "json"
    raise ConfigError(f"{FORMAT_VARIABLE}={wanted!r}: it is text (the default) or json")


def start_streams(stage: str) -> None:
    """With `LOG_FORMAT=json`, turn everything that Python writes to stderr from now on into JSON lines.

    Raises:
        ConfigError: `LOG_FORMAT` has another value than text or json.
    """
    if log_format() == "json" and not isinstance(sys.stderr, LineStream):
        stream = LineStream(sys.stderr, lambda line: encode_line("warning", stage, "stderr", line))
        sys.stderr = stream
        atexit.register(stream.end)


def start_console(level: str, stage: str) -> None:
    """Send the project's records of `level` and above to stderr, each led by the stage's name."""
    start_streams(stage)
    logger = logging.getLogger(LOGGER_NAME)
    logger.setLevel(logging.DEBUG)
    for place in (logger, logging.getLogger()):
        for handler in list(place.handlers):
            if isinstance(handler, _ConsoleHandler) or place is logger:
                place.removeHandler(handler)
    console = _ConsoleHandler()
    console.setLevel(level.upper())
    if log_format() == "text":
        console.setFormatter(_ConsoleFormatter(stage))
        logger.addHandler(console)
        return
    console.setFormatter(JsonFormatter(stage))
    logger.addHandler(console)
    libraries = _ConsoleHandler()
    libraries.setLevel(max(logging.WARNING, console.level))
    libraries.setFormatter(JsonFormatter(stage))
    libraries.addFilter(lambda record: not record.name.startswith(LOGGER_NAME))
    logging.captureWarnings(capture=True)
    logging.getLogger().addHandler(libraries)


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


def quiet_libraries() -> None:
    """Keep warnings of libraries off the console of a command that has no file for them; JSON lines have them still."""
    logging.captureWarnings(capture=True)
    logging.getLogger().addHandler(logging.NullHandler())


def stop_file(handler: logging.Handler) -> None:
    """Close a handler that `start_file` opened."""
    logging.getLogger().removeHandler(handler)
    handler.close()


def write_end(stage: str, message: str, exit_code: int, error: BaseException | None = None) -> None:
    """Write the last line of a process that ends with `exit_code`.

    Args:
        stage: whose process.
        message: what came, what was expected, what to do.
        exit_code: of the process.
        error: an unexpected one, told with its traceback.
    """
    told = "".join(traceback.format_exception(error)) if error is not None else ""
    if isinstance(sys.stderr, LineStream):
        fields = {"exit_code": exit_code, **({"exception": told} if told else {})}
        sys.stderr.raw.write(f"{encode_line('error', stage, LOGGER_NAME, message, fields)}\n")
        return
    sys.stderr.write(scrub(f"{told}{stage}: {message}\n", environment_secrets()))


class _ConsoleHandler(logging.StreamHandler[TextIO]):
    """Writes to the process's stderr as it is at that moment: a live bar stands in for it and keeps lines whole."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr.raw if isinstance(sys.stderr, LineStream) else sys.stderr


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
