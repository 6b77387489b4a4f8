"""A data reference -> batches of rows: `sample:NAME`, a local file, `s3://bucket/key`, or a hub id with its revision.

Rows keep the number they have in their source, before anything is dropped. A row that cannot be read is counted and
skipped; a file that cannot be read is an error.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from jobs.prepare.data_file import DataFile, TextRows
from jobs.prepare.formats import open_data_file
from pipeline_common.errors import InputError
from pipeline_common.sources import local_path, sha256_of, source_kind

BATCH_ROWS: Final = 2000
UNREADABLE: Final = (
    "most rows cannot be read; expected UTF-8 throughout, in CSV as many fields as in the header, in JSON Lines an "
    "object a line. Write the file again"
)
"""What to do where rows are missing because the file is not what its name says."""


@dataclass(frozen=True)
class Source:
    """A data set that can be read, once or again."""

    reference: str
    file: DataFile
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What identifies its content: sha256, commit, ETag ..."""


@dataclass(frozen=True)
class Batch:
    """Some consecutive rows of a source, without the unreadable ones."""

    numbers: list[int]
    """Row numbers in the source, from 0."""
    columns: dict[str, list[str]]
    """Column -> texts as they are in the source; a missing value is ""."""
    unreadable: int

    def __len__(self) -> int:
        return len(self.numbers)


def open_source(reference: str, revision: str | None, download_dir: Path, *, offline: bool) -> Source:
    """Find the data behind a reference, fetching it if it is elsewhere.

    Args:
        reference: as in the configuration.
        revision: of a hub data set; others have none.
        download_dir: where files from a bucket are put.
        offline: never ask the hub, only its cache.

    Raises:
        InputError: it is not there, may not be read, or is no data file.
        TransientError: the bucket cannot be reached at the moment.
    """
    kind = source_kind(reference)
    if kind == "sample":
        return Source(reference, _sample(reference))
    if kind == "local":
        path = local_path(reference)
        if path.is_dir():
            held = ", ".join(sorted(entry.name for entry in path.iterdir())[:10])
            raise InputError(f"{reference} is a folder; name one data file in it (it holds: {held})")
        return Source(reference, open_data_file(path), {"sha256": sha256_of(path), "bytes": path.stat().st_size})
    if kind == "s3":
        from jobs.prepare.bucket import download

        path, facts = download(reference, download_dir)
        return Source(reference, open_data_file(path, reference), facts)
    if kind == "hub":
        from jobs.prepare.hub import load_hub_rows

        rows, facts = load_hub_rows(reference, revision, offline=offline)
        return Source(reference, rows, facts)
    raise InputError(f"{reference} names no data set; give sample:NAME, a hub id, a local file or s3://bucket/key")


def require_columns(source: Source, columns: Mapping[str, str]) -> None:
    """Check that the source has the columns that are asked for.

    Args:
        source: the data.
        columns: configuration key -> column name.

    Raises:
        InputError: with every missing column, the key that names it, and the columns there are.
    """
    found = source.file.column_names
    missing = {key: name for key, name in columns.items() if name not in found}
    if missing and not found:
        raise InputError(
            f"{source.reference} has no columns: it is empty, or begins with neither a CSV header nor a JSON object; "
            f"expected {', '.join(map(repr, missing.values()))}. Write or fetch it again"
        )
    if missing:
        wanted = ", ".join(repr(name) for name in missing.values())
        keys = ", ".join(f"{key}=NAME" for key in missing)
        raise InputError(f"{source.reference} has no column {wanted}; it has {', '.join(map(repr, found))}: set {keys}")


def read_batches(
    source: Source, columns: Sequence[str], max_rows: int | None = None, batch_rows: int = BATCH_ROWS
) -> Iterator[Batch]:
    """Read columns of a source, some thousand rows at a time.

    Args:
        source: the data.
        columns: names that `require_columns` has checked.
        max_rows: stop after so many rows of the source; None = all.
        batch_rows: rows of a batch; changes memory, not results.
    """
    rows = itertools.islice(enumerate(source.file.rows(list(dict.fromkeys(columns)))), max_rows)
    while chunk := list(itertools.islice(rows, batch_rows)):
        readable = [(number, row) for number, row in chunk if row is not None]
        columns_read = {
            name: [row[position] or "" for _, row in readable] for position, name in enumerate(dict.fromkeys(columns))
        }
        yield Batch([number for number, _ in readable], columns_read, len(chunk) - len(readable))


def _sample(reference: str) -> TextRows:
    from pipeline_common.samples import SAMPLES

    name = reference.removeprefix("sample:")
    make: Callable[[], list[dict[str, str]]] | None = SAMPLES.get(name)
    if make is None:
        raise InputError(f"{reference}: no such sample; there are {', '.join(f'sample:{known}' for known in SAMPLES)}")
    return TextRows(make())
