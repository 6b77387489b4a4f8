"""JSON documents as the report's tables: one row per value, and a table of its own for what is counted alike."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from jobs.analyze import formatting as form
from jobs.analyze.blocks import Table, facts_table
from jobs.analyze.formatting import Line, line

_MAX_FACTS: Final = 120
_MAX_LIST: Final = 12


def list_facts(facts: Mapping[str, Any], source: str) -> Iterator[tuple[str, Line]]:
    """A JSON document as name and value; what is too long for a page is counted, never dropped silently."""
    found = list(_walk(facts, "", source))
    yield from found[:_MAX_FACTS]
    if len(found) > _MAX_FACTS:
        yield f"{len(found) - _MAX_FACTS} more", line(f"in {source}")


def folded_facts(title: str, facts: Mapping[str, Any], source: str) -> tuple[Table, ...]:
    """A folded table of facts, if there are any."""
    rows = list(list_facts(facts, source))
    return (facts_table(title, rows, folded=True, printed=False),) if rows else ()


def split_grids(facts: Mapping[str, Any], path: str = "") -> tuple[dict[str, Any], dict[str, Mapping[str, Any]]]:
    """What of a JSON document is no grid, and the grids by their paths.

    A grid is a mapping of two or more mappings that all have the same keys and plain values.
    """
    plain: dict[str, Any] = {}
    grids: dict[str, Mapping[str, Any]] = {}
    for key, value in facts.items():
        name = f"{path}{key}"
        if isinstance(value, Mapping) and _is_grid(value):
            grids[name] = value
        elif isinstance(value, Mapping):
            inner, found = split_grids(value, f"{name}.")
            grids |= found
            if inner or not value:
                plain[key] = inner
        else:
            plain[key] = value
    return plain, grids


def _is_grid(value: Mapping[str, Any]) -> bool:
    rows = list(value.values())
    if len(rows) < 2 or not all(isinstance(row, Mapping) and row for row in rows):
        return False
    same = all(row.keys() == rows[0].keys() for row in rows)
    return same and not any(isinstance(cell, Mapping | list) for row in rows for cell in row.values())


def grid_table(path: str, grid: Mapping[str, Any], source: str) -> Table:
    """A row per entry of a grid of the document `source`, which is found there under `path`."""
    names = sorted(grid, key=_natural)[:_MAX_FACTS]
    columns = list(grid[names[0]])
    rows = [
        (line(name), *(_show_fact(grid[name][column], f"{source}/{path}.{name}.{column}") for column in columns))
        for name in names
    ]
    left_out = f"{len(grid) - len(names)} more in {source}." if len(grid) > len(names) else ""
    title = path.replace(".", ": ").replace("_", " ")
    return Table(f"{title[:1].upper()}{title[1:]}", ("name", *columns), tuple(rows), note=left_out)


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """S2 before S10."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", name)]


def _walk(facts: Mapping[str, Any], path: str, source: str) -> Iterator[tuple[str, Line]]:
    """One row per value; a short mapping without mappings inside is one row."""
    for key, value in facts.items():
        name = f"{path}{key}"
        if not isinstance(value, Mapping):
            yield name, _show_fact(value, f"{source}/{name}")
        elif value and (len(value) > _MAX_LIST or any(isinstance(entry, Mapping) for entry in value.values())):
            yield from _walk(value, f"{name}.", source)
        else:
            pieces: list[Line] = []
            for part, entry in value.items():
                separator = ", " if pieces else ""
                pieces.append(line(separator, f"{part} ", _show_fact(entry, f"{source}/{name}.{part}")))
            yield name, line(*pieces) or line("none")


def _show_fact(value: Any, field: str) -> Line:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return line(show_value(value))
    shown = form.COUNT.write(value) if isinstance(value, int) and abs(value) >= 10_000 else show_value(value)
    return (form.Number(shown, value, field),)


def show_value(value: Any) -> str:
    """A value in words; what is too long for a row is counted."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        if not all(isinstance(entry, str | int | float) for entry in value) or len(value) > _MAX_LIST:
            return f"{len(value)} entries"
        return ", ".join(show_value(entry) for entry in value) or "none"
    return str(value) if value != {} else "none"
