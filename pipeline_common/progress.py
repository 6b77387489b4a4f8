"""Progress of long loops: a live line on a terminal, log lines elsewhere, and a file that `make status` reads."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from pipeline_common import provenance
from pipeline_common.json_logs import FIELDS
from pipeline_common.logs import get_logger
from pipeline_common.quantities import describe_seconds

PROGRESS_FILE: Final = "progress.json"
LINE_EVERY_S: Final = 10.0
"""Between two lines of a log."""
_FILE_EVERY_S: Final = 2.0
_log = get_logger(__name__)
# Set by `tell_progress` for the process, as a logging handler is: the loops are far from where the stage is known.
_told_to: list[_Audience] = []


@dataclass
class _Audience:
    stage: str
    path: Path
    phase: str = ""
    """What the stage is in, where it is in no loop."""


@dataclass(frozen=True)
class Progress:
    """How far a loop has come."""

    stage: str
    what: str
    done: int
    total: int
    """0 = not known."""
    note: str
    values: dict[str, float]
    eta_s: float | None
    """Seconds until its end at its pace so far; None = not known."""
    at: str
    """When this was written, UTC."""

    @property
    def is_phase(self) -> bool:
        """Whether this is no loop but a part of the stage that says nothing until it ends."""
        return self.done == self.total == 0

    def describe(self) -> str:
        """`training: 30 of 60 (loss 1.234, 830 tokens/s), 12 s left`."""
        if self.is_phase:
            return self.what
        of = f" of {self.total}" if self.total else ""
        notes = f" ({', '.join(self.notes())})" if self.notes() else ""
        left = f", {describe_seconds(self.eta_s)} left" if self.eta_s else ""
        return f"{self.what}: {self.done}{of}{notes}{left}"

    def notes(self) -> list[str]:
        """The note and the values, in words."""
        return [*([self.note] if self.note else []), *(_describe_value(*value) for value in self.values.items())]


class Advance(Protocol):
    """What a loop calls once per step."""

    def __call__(self, done: int, note: str = "", **values: float) -> None:
        """`done` of the total are finished; `note` and the named `values` are shown beside it."""


@dataclass
class Pace:
    """Seconds left, from the steps since the first that was reported: what came before it was loading, or resumed."""

    total: int
    clock: Callable[[], float] = time.monotonic
    _first: tuple[float, int] | None = field(default=None, init=False)

    def left_s(self, done: int) -> float | None:
        """Seconds until the end; None while there is nothing to go by."""
        now = self.clock()
        if self._first is None:
            self._first = (now, done)
        began, first = self._first
        if done <= first or self.total <= 0:
            return None
        return max(0.0, (now - began) / (done - first) * (self.total - done))


@contextmanager
def tell_progress(stage: str, path: Path) -> Iterator[None]:
    """Loops of this process write how far they are into the file `path`, as `stage`'s, until the block ends."""
    audience = _Audience(stage, path)
    # What a killed attempt has left.
    path.unlink(missing_ok=True)
    _told_to.append(audience)
    try:
        yield
    finally:
        _told_to.remove(audience)
        path.unlink(missing_ok=True)


@contextmanager
def tell_phase(name: str) -> Iterator[None]:
    """Say which part of the stage the process is in, to whom its loops are told."""
    audience = _told_to[-1] if _told_to else None
    if audience is None:
        yield
        return
    outer, audience.phase = audience.phase, name
    _tell_phase(audience)
    try:
        yield
    finally:
        audience.phase = outer
        _tell_phase(audience)


def _tell_phase(audience: _Audience) -> None:
    if not audience.phase:
        audience.path.unlink(missing_ok=True)
        return
    _write(audience.path, asdict(Progress(audience.stage, audience.phase, 0, 0, "", {}, None, provenance.now())))


def read_progress(path: Path) -> Progress | None:
    """What a stage's process wrote last; None when it is in no loop."""
    try:
        return Progress(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


@contextmanager
def track(what: str, total: int) -> Iterator[Advance]:
    """Show how far a loop of `total` steps has come.

    Args:
        what: what is being done, in a few words.
        total: number of steps; 0 = not known.
    """
    audience = _told_to[-1] if _told_to else None
    pace = Pace(total)
    written = 0.0

    def note_down(done: int, note: str, values: Mapping[str, float]) -> Progress:
        nonlocal written
        stage = audience.stage if audience else ""
        seen = Progress(stage, what, done, total, note, dict(values), pace.left_s(done), provenance.now())
        if audience is not None and time.monotonic() - written >= _FILE_EVERY_S:
            written = time.monotonic()
            _write(audience.path, asdict(seen))
        return seen

    with _show(what, total) as show:

        def advance(done: int, note: str = "", **values: float) -> None:
            show(note_down(done, note, values))

        yield advance
    if audience is not None:
        _tell_phase(audience)


@contextmanager
def _show(what: str, total: int) -> Iterator[Callable[[Progress], None]]:
    """A live line on a terminal, log lines elsewhere."""
    if not sys.stderr.isatty():
        last = time.monotonic()

        def report(seen: Progress) -> None:
            nonlocal last
            if time.monotonic() - last >= LINE_EVERY_S:
                last = time.monotonic()
                _log.info("%s", seen.describe(), extra={FIELDS: _machine_fields(seen)})

        yield report
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
    stage = f"{_told_to[-1].stage:<12} " if _told_to else ""
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"{stage}{what}", total=total or None, note="")

        def draw(seen: Progress) -> None:
            # The count stands in a column of its own.
            bar.update(task, completed=seen.done, note=_beside(seen))

        yield draw


def _beside(seen: Progress) -> str:
    left = [f"{describe_seconds(seen.eta_s)} left"] if seen.eta_s else []
    return ", ".join([*seen.notes(), *left])


def _machine_fields(seen: Progress) -> dict[str, Any]:
    eta = None if seen.eta_s is None else round(seen.eta_s, 1)
    return {"progress": {"what": seen.what, "done": seen.done, "total": seen.total, **seen.values, "eta_s": eta}}


def _describe_value(name: str, value: float) -> str:
    if name.endswith("_per_second"):
        return f"{value:,.0f} {name.removesuffix('_per_second').replace('_', ' ')}/s"
    return f"{name.replace('_', ' ')} {value:.3f}"


def _write(path: Path, content: Mapping[str, Any]) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(content), encoding="utf-8")
    partial.replace(path)
