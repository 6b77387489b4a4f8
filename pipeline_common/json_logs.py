"""Lines for machines: one JSON object each, whoever wrote them (`LOG_FORMAT=json`)."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from pipeline_common.redaction import environment_secrets, scrub

FIELDS: Final = "fields"
"""Name in `extra` of a record's own fields: `log.info("...", extra={FIELDS: {"done": 3}})`."""


def encode_line(
    level: str,
    stage: str,
    logger: str,
    message: str,
    fields: Mapping[str, Any] | None = None,
    *,
    created: float | None = None,
) -> str:
    """One line, without its end.

    Args:
        level: debug, info, warning, error or critical.
        stage: whose process this is.
        logger: who wrote it.
        message: for people.
        fields: more, for machines; the five names above win.
        created: seconds since 1970, UTC; None = now.

    Returns:
        ASCII, so that no reader finds an end of line inside; secrets are replaced by `***`.
    """
    moment = datetime.now(UTC) if created is None else datetime.fromtimestamp(created, UTC)
    time = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    entry = {"time": time, "level": level, "stage": stage, "logger": logger, "message": message}
    # Before the encoding, which writes some characters of a secret in another way.
    return json.dumps(_scrub({**entry, **{k: v for k, v in (fields or {}).items() if k not in entry}}), default=str)


class JsonFormatter(logging.Formatter):
    """A record as one line; a traceback is its field `exception`."""

    def __init__(self, stage: str) -> None:
        super().__init__()
        self._stage = stage

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        fields = dict(getattr(record, FIELDS, {}))
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return encode_line(
            record.levelname.lower(), self._stage, record.name, record.getMessage(), fields, created=record.created
        )


class LineStream(io.TextIOBase):
    """Stands in for `sys.stderr`: what is written to it past the logging becomes lines, too.

    Args:
        raw: the stream of the process.
        encode: turns a line into what is written.
    """

    def __init__(self, raw: TextIO, encode: Callable[[str], str]) -> None:
        super().__init__()
        self.raw = raw
        self._encode = encode
        self._rest = ""

    def write(self, text: str) -> int:
        """Write every line that is complete; a carriage return ends one as well, as bars of libraries do."""
        *lines, self._rest = (self._rest + text).replace("\r", "\n").split("\n")
        for line in lines:
            self._emit(line)
        return len(text)

    def writable(self) -> bool:
        """True."""
        return True

    def fileno(self) -> int:
        """The stream's own: child processes write there as they are told to by the same environment."""
        return self.raw.fileno()

    def end(self) -> None:
        """Write a last line that nobody ended."""
        self._emit(self._rest)
        self._rest = ""

    def _emit(self, line: str) -> None:
        if line.strip():
            self.raw.write(f"{self._encode(line.rstrip())}\n")
            self.raw.flush()


def _scrub(value: Any) -> Any:
    if isinstance(value, str):
        return scrub(value, environment_secrets())
    if isinstance(value, Mapping):
        return {key: _scrub(part) for key, part in value.items()}
    return value
