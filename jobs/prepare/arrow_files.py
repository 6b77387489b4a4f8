"""Parquet, and whatever else comes as Arrow batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.prepare.data_file import Row, damage_explained
from pipeline_common.errors import InputError

_ARROW_ROWS: Final = 1000
_READ_BUFFER: Final = 1 << 20
_BROKEN: Final = "\udcff"  # a lone surrogate: no text of a file can be this


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
        with damage_explained(self._name):
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
                raise InputError(
                    f"{self._name}: column {name!r} holds {kind}; expected text. Name another column, or write "
                    "this one as strings"
                )


class ParquetFile(ArrowRows):
    """A Parquet file, read in small steps so that a huge row group costs no memory."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        with damage_explained(name), pq.ParquetFile(path) as file:
            super().__init__(file.schema_arrow, file.metadata.num_rows, name)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """See `ArrowRows`."""
        with pq.ParquetFile(self._path, pre_buffer=False, buffer_size=_READ_BUFFER) as file:
            yield from file.iter_batches(batch_size=_ARROW_ROWS, columns=list(columns), use_threads=False)


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
