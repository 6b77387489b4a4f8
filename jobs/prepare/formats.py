"""Which reader a data file needs, by its suffix."""

from __future__ import annotations

from pathlib import Path

from jobs.prepare.arrow_files import ParquetFile
from jobs.prepare.data_file import DataFile
from jobs.prepare.text_files import CsvFile, JsonLinesFile
from pipeline_common.errors import InputError


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
