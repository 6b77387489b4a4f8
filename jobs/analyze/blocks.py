"""What a report is made of. HTML and Markdown say the same because both render these blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from jobs.analyze.examples import Example
from jobs.analyze.figures.style import Picture
from jobs.analyze.formatting import Line, line


@dataclass(frozen=True)
class Paragraph:
    """A few sentences."""

    text: Line
    kind: Literal["paragraph"] = "paragraph"


@dataclass(frozen=True)
class Bullets:
    """A short list."""

    items: tuple[Line, ...]
    kind: Literal["bullets"] = "bullets"


@dataclass(frozen=True)
class Table:
    """A table; the first column names the rows."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Line, ...], ...]
    note: str = ""
    folded: bool = False
    """Behind a click in HTML: long tables for looking things up."""
    printed: bool = True
    """Whether paper shows a folded one; else it is for looking things up in the files."""
    numeric: bool = True
    """Whether the columns after the first hold numbers."""
    kind: Literal["table"] = "table"

    def __post_init__(self) -> None:
        wrong = [len(row) for row in self.rows if len(row) != len(self.columns)]
        if wrong:
            raise ValueError(f"table {self.title!r}: a row has {wrong[0]} cells, the head has {len(self.columns)}")


@dataclass(frozen=True)
class Figure:
    """A picture; the files lie in `figures/`."""

    picture: Picture
    kind: Literal["figure"] = "figure"


@dataclass(frozen=True)
class Examples:
    """Answers side by side; those to unsafe prompts behind a click."""

    items: tuple[Example, ...]
    brief: tuple[Example, ...]
    """What a plain text or a sheet of paper shows of them."""
    kind: Literal["examples"] = "examples"

    @property
    def axioms(self) -> list[str]:
        """To choose from."""
        return sorted({example.axiom for example in self.items})

    @property
    def criteria(self) -> list[str]:
        """The judge's, of those that scored something here."""
        answers = [answer for example in self.items for answer in (example.base, example.tuned)]
        return sorted({name for answer in answers for name in answer.scores})


Block = Paragraph | Bullets | Table | Figure | Examples


@dataclass(frozen=True)
class Section:
    """A titled part of the report; `id` is its anchor."""

    id: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class FirstScreen:
    """What is read before anything else."""

    label: str
    headline: str
    facts: Line
    """Which models, data and prompts."""
    table: Table
    smallest_damage: str
    contradictions: tuple[str, ...] = field(default_factory=tuple)
    recommendation: str = ""
    caution: str = ""
    """What must be known before any number is read: the first paragraph, where there is such a thing."""
    controls: tuple[str, ...] = ()
    """One sentence per control."""


def text(*sentences: str) -> Paragraph:
    """A paragraph without marked numbers."""
    return Paragraph((" ".join(sentences),))


def bullets(sentences: Sequence[str]) -> Bullets:
    """A list of sentences."""
    return Bullets(tuple(line(sentence) for sentence in sentences))


def facts_table(
    title: str, facts: Sequence[tuple[str, Line]], *, note: str = "", folded: bool = False, printed: bool = True
) -> Table:
    """Two columns: name and value."""
    rows = tuple((line(name), value) for name, value in facts)
    return Table(title, ("fact", "value"), rows, note, folded, printed, numeric=False)
