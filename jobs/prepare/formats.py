"""Data files: Parquet, CSV and JSON lines (the last two also gzipped), read as streams of text rows.

Each reader yields one entry per row of the file: the texts of the wanted columns, or None for a row that cannot be
read. A null is None inside a row.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_common.errors import InputError

Row = Sequence[str | None]

_ARROW_ROWS: Final = 1000
_READ_BUFFER: Final = 1 << 20
_NAMING_ROWS: Final = 100  # JSON lines have no header; the keys of so many rows are their columns
_LONGEST_FIELD: Final = 1 << 30


class DataFile(Protocol):
    """Rows with named columns."""

    @property
    def column_names(self) -> list[str]:
        """All columns, in the order of the source."""

    @property
    def row_count(self) -> int | None:
        """Rows, where the format tells before reading."""

    def rows(self, columns: Sequence[str]) -> Iterator[Row | None]:
        """Every row's texts in these columns; None = unreadable."""


def open_data_file(path: Path, reference: str | None = None) -> DataFile:
    """Open a data file by its suffix.

    Args:
        path: the local file.
        reference: how a person calls it, for messages; None = the path.

    Raises:
        InputError: an unknown suffix, or a damaged file.
    """
    name = reference or str(path)
    suffixes = "".join(path.suffixes[-2:]).lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
    if suffixes == ".parquet":
        return ParquetFile(path, name)
    if suffixes in {".csv", ".csv.gz"}:
        return CsvFile(path, name)
    if suffixes in {".jsonl", ".jsonl.gz", ".json"}:
        return JsonLinesFile(path, name)
    raise InputError(
        f"{name}: cannot tell the format from its name; expected .parquet, .csv, .jsonl, .csv.gz or .jsonl.gz"
    )


class TextRows:
    """Rows that are in memory already."""

    def __init__(self, rows: Sequence[Mapping[str, str]]) -> None:
        self._rows = rows

    @property
    def column_names(self) -> list[str]:
        """See `DataFile`."""
        return list(self._rows[0]) if self._rows else []

    @property
    def row_count(self) -> int | None:
        """See `DataFile`."""
        return len(self._rows)

    def rows(self, columns: Sequence[str]) -> Iterator[Row | None]:
        """See `DataFile`."""
        return ([row[name] for name in columns] for row in self._rows)


class ArrowRows(ABC):
    """Rows of Arrow batches."""

    def __init__(self, schema: pa.Schema, row_count: int, name: str) -> None:
        self._schema = schema
        self._row_count = row_count
        self._name = name

    @property
    def column_names(self) -> list[str]:
        """See `DataFile`."""
        return list(self._schema.names)

    @property
    def row_count(self) -> int | None:
        """See `DataFile`."""
        return self._row_count

    def rows(self, columns: Sequence[str]) -> Iterator[Row | None]:
        """See `DataFile`.

        Raises:
            InputError: a column holds no text, or the data is damaged.
        """
        self._require_text(columns)
        with _damage_explained(self._name):
            for batch in self.batches(columns):
                texts = [_texts(batch.column(name)) for name in columns]
                for row in zip(*texts, strict=True):
                    yield None if any(value is _BROKEN for value in row) else row

    @abstractmethod
    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The data, some rows at a time."""

    def _require_text(self, columns: Sequence[str]) -> None:
        for name in columns:
            kind = self._schema.field(name).type
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
                raise InputError(f"{self._name}: column {name!r} holds {kind}; expected text")


class ParquetFile(ArrowRows):
    """A Parquet file, read in small steps so that a huge row group costs no memory."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        with _damage_explained(name), pq.ParquetFile(path) as file:
            super().__init__(file.schema_arrow, file.metadata.num_rows, name)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """See `ArrowRows`."""
        with pq.ParquetFile(self._path, pre_buffer=False, buffer_size=_READ_BUFFER) as file:
            yield from file.iter_batches(batch_size=_ARROW_ROWS, columns=list(columns), use_threads=False)


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
            _damage_explained(self._name),
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
        with _damage_explained(self._name), _open_bytes(self._path) as stream:
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


_BROKEN: Final = "\udcff"  # a lone surrogate: no text of a file can be this


def _texts(column: pa.Array) -> list[str | None]:
    """Texts of an Arrow column; those that are not UTF-8 are `_BROKEN`."""
    try:
        texts: list[str | None] = column.to_pylist()
    except UnicodeDecodeError:
        texts = [_text_or_broken(value) for value in column]
    return texts


def _text_or_broken(value: pa.Scalar) -> str | None:
    try:
        text: str | None = value.as_py()
    except UnicodeDecodeError:
        return _BROKEN
    return text


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


@contextmanager
def _damage_explained(name: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, EOFError, zlib.error, OSError) as error:
        # Arrow and gzip report damage as an OSError without a number; with one it is the system that refuses.
        if isinstance(error, OSError) and error.errno is not None:
            raise InputError(f"{name} cannot be read: {error.strerror}") from error
        first_line = str(error).strip().split("\n", 1)[0]
        raise InputError(
            f"{name} is damaged or not what its name says: {first_line}; fetch or write it again"
        ) from error
