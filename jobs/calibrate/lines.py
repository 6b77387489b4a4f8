"""A CSV file of records that grows line by line and survives a kill."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ValidationError

from pipeline_common.errors import InputError
from pipeline_common.logs import get_logger

_none_if_empty = BeforeValidator(lambda value: None if value == "" else value)
OptionalNumber = Annotated[float | None, _none_if_empty]
"""An empty field is a number that is undefined."""
OptionalCount = Annotated[int | None, _none_if_empty]
"""The same of a whole number."""
Record = TypeVar("Record", bound=BaseModel)
_log = get_logger(__name__)


def read_lines(path: Path, kind: type[Record], mend: str) -> list[Record]:
    """The records of a file, in the order they were added; none when there is no file yet.

    A last line that was cut off by a kill is left out.

    Args:
        path: the file.
        kind: of the records; its fields are the columns.
        mend: what to do about a line that is none, for the reader.

    Raises:
        InputError: the file has other columns, or a line that is no record.
    """
    text = _whole_lines(path)
    if not text:
        return []
    columns = list(kind.model_fields)
    reader = csv.DictReader(io.StringIO(text))
    if list(reader.fieldnames or ()) != columns:
        raise InputError(
            f"{path} has the columns {reader.fieldnames}; expected {columns}: it was written by another version; "
            "move it away, or give another --output"
        )
    return [_parse(path, reader.line_num, row, kind, mend) for row in reader]


def append_line(path: Path, record: BaseModel) -> None:
    """Add one line (and the header to a new file), on the disk before this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = len(_whole_lines(path).encode())
    line = io.StringIO()
    writer = csv.DictWriter(line, list(type(record).model_fields), lineterminator="\n")
    if kept == 0:
        writer.writeheader()
    writer.writerow(record.model_dump())
    with path.open("ab") as stream:
        stream.truncate(kept)
        stream.write(line.getvalue().encode())
        stream.flush()
        os.fsync(stream.fileno())


def _whole_lines(path: Path) -> str:
    """The file up to its last line end."""
    if not path.exists():
        return ""
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        _log.warning("%s: its last line was cut off and is left out", path)
    return whole


def _parse(path: Path, line: int, row: Mapping[str, Any], kind: type[Record], mend: str) -> Record:
    try:
        return kind.model_validate(row)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{path}, line {line}: {where}: {first['msg']} (came: {first.get('input')!r}); {mend}"
        ) from error
