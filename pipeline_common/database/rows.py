"""Rows in files (JSON Lines), and rows on their way into a table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

Row = Mapping[str, Any]
# Postgres cannot keep the character NUL in a text; a model may well generate one. Its symbol stands for it in both
# databases, the artifact keeps the original.
_NUL: Final = "\x00"
_NUL_SYMBOL: Final = "␀"


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a JSON Lines file."""
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as JSON Lines; NaN and infinity are refused, None stays null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as stream:
        for row in rows:
            stream.write(json.dumps(row, allow_nan=False, ensure_ascii=False) + "\n")


def storable(row: Row) -> dict[str, Any]:
    """The row as both databases can keep it: the character NUL becomes its symbol."""
    return {
        name: _without_nul(value) if isinstance(value, str | Mapping | list | tuple) else value
        for name, value in row.items()
    }


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace(_NUL, _NUL_SYMBOL)
    if isinstance(value, Mapping):
        return {_without_nul(key): _without_nul(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nul(item) for item in value]
    return value
