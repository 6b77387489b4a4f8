"""The rows of `training_metrics`, built from the trainer's own log.

The trainer logs every step and keeps its log in every checkpoint, so a resumed run goes on with the very log of the
killed one: no step twice, none missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline_common.database import write_rows

Row = dict[str, Any]


class RowBuilder:
    """Turns log entries, fed in order, into rows: a training row every `logging_steps`, a validation row each time.

    `loss` of a training row is the mean over the steps since the row before; learning rate and gradient norm are those
    of its own step; tokens per second are the window's tokens over its seconds.
    """

    def __init__(self, logging_steps: int, last_step: int) -> None:
        self._logging_steps = logging_steps
        self._last_step = last_step
        self._window: list[Mapping[str, Any]] = []

    def add(self, entry: Mapping[str, Any]) -> Row | None:
        """The row that `entry` completes, if any; entries that are neither kind (run times) are passed over."""
        if "eval_loss" in entry:
            return _row("validation", entry, loss=float(entry["eval_loss"]))
        if "loss" not in entry:
            return None
        self._window.append(entry)
        step = entry["step"]
        if step % self._logging_steps and step != self._last_step:
            return None
        window, self._window = self._window, []
        seconds = sum(item["seconds"] for item in window)
        return _row(
            "train",
            entry,
            loss=sum(item["loss"] for item in window) / len(window),
            learning_rate=float(entry["learning_rate"]),
            grad_norm=float(entry["grad_norm"]),
            tokens_per_second=sum(item["tokens"] for item in window) / seconds if seconds > 0 else None,
        )


def build_rows(entries: Iterable[Mapping[str, Any]], logging_steps: int, last_step: int) -> list[Row]:
    """All rows of a log."""
    builder = RowBuilder(logging_steps, last_step)
    return [row for entry in entries if (row := builder.add(entry)) is not None]


class MetricsWriter:
    """Rows into a JSON Lines file at once, and handed on to whoever sends them to the database."""

    def __init__(self, path: Path, send: Callable[[Sequence[Row]], None]) -> None:
        self._path = path
        self._send = send

    def restart(self, rows: Sequence[Row]) -> None:
        """Begin with the rows of the steps before the checkpoint (none in a first attempt)."""
        write_rows(self._path, rows)
        self._send(rows)

    def add(self, row: Row) -> None:
        """Write one more row."""
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row, allow_nan=False, ensure_ascii=False) + "\n")
        self._send([row])


def _row(split: str, entry: Mapping[str, Any], **values: float | None) -> Row:
    empty = dict.fromkeys(("loss", "learning_rate", "grad_norm", "tokens_per_second"))
    return {"split": split, "step": int(entry["step"]), "epoch": float(entry["epoch"]), **empty, **values}
