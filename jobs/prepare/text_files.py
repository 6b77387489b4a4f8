"""CSV and JSON lines, also gzipped: a row that cannot be read is None, and the next one is read all the same."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

from jobs.prepare.data_file import Row, damage_explained
from pipeline_common.errors import InputError

_NAMING_ROWS: Final = 100  # JSON lines have no header; the keys of so many rows are their columns
_LONGEST_FIELD: Final = 1 << 30


class CsvFile:
    """A CSV file in UTF-8 with a header, quoted as spreadsheets do; a row of another width is unreadable."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._name = name
        with self._open() as reader:
            self._header: list[str] = next(reader, [])

    @property
    def column_names(self) -> list[str]:
        """See `DataFile`."""
        return list(self._header)

    @property
    def row_count(self) -> int | None:
        """See `DataFile`."""
        return None

    def rows(self, columns: Sequence[str]) -> Iterator[Row | None]:
        """See `DataFile`."""
        places = [self._header.index(name) for name in columns]
        with self._open() as reader:
            next(reader, None)
            while True:
                try:
                    row = next(reader)
                except StopIteration:
                    return
                except csv.Error:
                    yield None
                    continue
                if not row:  # an empty line is no row
                    continue
                whole = len(row) == len(self._header)
                texts = [row[place] for place in places] if whole else []
                yield texts if whole and all(_is_text(text) for text in texts) else None

    @contextmanager
    def _open(self) -> Iterator[Any]:
        csv.field_size_limit(_LONGEST_FIELD)
        with (
            damage_explained(self._name),
            _open_bytes(self._path) as stream,
            # A wrong byte spoils its row, not the file.
            io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="") as text,
        ):
            yield csv.reader(text, strict=True)


class JsonLinesFile:
    """One JSON object per line, or one array of objects in a `.json` file."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._name = name
        found: dict[str, None] = {}
        for number, row in enumerate(self._objects()):
            if number == _NAMING_ROWS:
                break
            found.update(dict.fromkeys(row or ()))
        self._names = list(found)

    @property
    def column_names(self) -> list[str]:
        """See `DataFile`."""
        return list(self._names)

    @property
    def row_count(self) -> int | None:
        """See `DataFile`."""
        return None

    def rows(self, columns: Sequence[str]) -> Iterator[Row | None]:
        """See `DataFile`; a number or a list where a text belongs makes a row unreadable."""
        for row in self._objects():
            texts = None if row is None else [row.get(name) for name in columns]
            readable = texts is not None and all(text is None or _is_text(text) for text in texts)
            yield texts if readable else None

    def _objects(self) -> Iterator[dict[str, Any] | None]:
        with damage_explained(self._name), _open_bytes(self._path) as stream:
            for entry in _json_entries(stream, self._name):
                yield entry if isinstance(entry, dict) else None


def _json_entries(stream: BinaryIO | gzip.GzipFile, name: str) -> Iterable[Any]:
    lines = (line for line in stream if line.strip())
    first = next(lines, b"")
    if first.lstrip(b"\xef\xbb\xbf \t").startswith(b"["):
        try:
            yield from json.loads(first + b"".join(lines))
        except ValueError as error:
            raise InputError(f"{name} begins as a JSON array but is none: {error}") from error
        return
    if first:
        yield _parse_line(first.removeprefix(b"\xef\xbb\xbf"))
    for line in lines:
        yield _parse_line(line)


def _parse_line(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _is_text(value: object) -> bool:
    """A string that UTF-8 can write: lone surrogates stand for bytes or escapes that were wrong."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _open_bytes(path: Path) -> Any:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")
