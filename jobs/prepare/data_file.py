"""What every data file offers, whatever its format: named columns, and rows of texts as a stream.

A row is the texts of the wanted columns; it is None where it cannot be read, and a null is None inside it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import pyarrow as pa

from pipeline_common.errors import InputError

Row = Sequence[str | None]


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


@contextmanager
def damage_explained(name: str) -> Iterator[None]:
    """Turn what a damaged or unreadable file raises into an error that names it.

    Raises:
        InputError: in place of the library's or the system's error.
    """
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
