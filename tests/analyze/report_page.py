"""What the stage wrote, read back: the page as a browser has it, its tables, the summary."""

from __future__ import annotations

import html.parser
import json
from dataclasses import dataclass, field
from typing import Any

from pipeline_common.context import Context

FIGURES = ("aqi_per_axiom", "behaviour", "layers", "projection", "prompts", "training_loss")


@dataclass
class Page(html.parser.HTMLParser):
    """What a browser would see of the report."""

    tags: list[str] = field(default_factory=list)
    attributes: list[tuple[str, str, str]] = field(default_factory=list)
    """(tag, attribute, value)."""
    numbers: dict[str, set[tuple[float, str]]] = field(default_factory=dict)
    """Field -> (exact value, shown text)."""
    text: str = ""
    """What is read, so neither the style nor the scripts."""
    scripts: list[tuple[str, str]] = field(default_factory=list)
    """(type, content)."""
    folded: list[str] = field(default_factory=list)
    """Text of every `details`."""

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._open: list[str] = []
        self._number: tuple[str, float] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.extend((tag, name, value or "") for name, value in attrs)
        found = dict(attrs)
        if tag == "details":
            self.folded.append("")
        if tag not in {"meta", "br", "use", "path", "img"}:
            self._open.append(tag)
        if tag == "script":
            self.scripts.append((found.get("type") or "", ""))
        if tag == "data":
            self._number = (found.get("data-field") or "", float(found["value"] or "nan"))

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if self._open[-1:] == ["script"]:
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
            return
        self.text += data
        if "details" in self._open:
            self.folded[-1] += data
        if self._open and self._open[-1] == "data" and self._number:
            name, value = self._number
            self.numbers.setdefault(name, set()).add((value, data))


def read_page(context: Context) -> Page:
    page = Page()
    page.feed((context.files / "report.html").read_text(encoding="utf-8"))
    return page


def read_summary(context: Context) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((context.files / "summary.json").read_text(encoding="utf-8"))
    return found


class Tables(html.parser.HTMLParser):
    """Every table of a page: its title, and the text of its rows."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, list[list[str]]]] = []
        self._in = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.found.append(("", []))
        elif tag == "tr":
            self.found[-1][1].append([])
        elif tag in {"th", "td"}:
            self.found[-1][1][-1].append("")
        self._in = tag if tag in {"caption", "th", "td"} else self._in

    def handle_endtag(self, tag: str) -> None:
        if tag in {"caption", "th", "td"}:
            self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in == "caption":
            title, rows = self.found[-1]
            self.found[-1] = (title + data, rows)
        elif self._in:
            self.found[-1][1][-1][-1] += data


def as_said(text: str) -> str:
    """Without what only keeps a line together."""
    return " ".join(text.replace("\N{NO-BREAK SPACE}", " ").split())
