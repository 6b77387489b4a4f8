"""Write the report twice from the same blocks: `report.html` (one self-contained file) and `report.md`.

Prompts and answers are untrusted text. In HTML every text is escaped by the template engine, no script exists and the
page's own policy forbids any; in Markdown every text is escaped and answers stand in fences longer than any in them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from jobs.analyze.blocks import FirstScreen, Section
from jobs.analyze.evidence import Evidence
from jobs.analyze.figures.style import Picture
from jobs.analyze.formatting import SIGNED_TWO_DIGITS, TWO_DIGITS, Interval, Line, Number, plain
from jobs.analyze.sections_result import build_first_screen, build_result_sections
from jobs.analyze.sections_run import build_run_sections
from pipeline_common.errors import InputError

TEMPLATES: Final = Path(__file__).parent / "templates"
MAX_HTML_BYTES: Final = 3_000_000
"""A report is mailed around and opened on phones."""

_MARKS: Final = {"damaged": "✕", "inconclusive": "?", "no damage found": "✓"}
_MARKDOWN_SPECIAL: Final = re.compile(r"([\\`*_\[\]<>|#~&])")


def write_reports(evidence: Evidence, pictures: Mapping[str, Picture], folder: Path) -> dict[str, int]:
    """Write both files; their sizes in bytes by name.

    Raises:
        InputError: the HTML is larger than `MAX_HTML_BYTES`.
    """
    content = build_content(evidence, pictures)
    environment = _make_environment()
    sizes = {}
    for name in ("report.html", "report.md"):
        rendered = environment.get_template(f"{name}.j2").render(content).encode()
        sizes[name] = len(rendered)
        (folder / name).write_bytes(rendered)
    if sizes["report.html"] > MAX_HTML_BYTES:
        raise InputError(
            f"report.html would have {sizes['report.html']:,} bytes, at most {MAX_HTML_BYTES:,} are meant; this "
            "run's findings do not fit one page: lower the number of axioms or layers that are scored"
        )
    return sizes


def build_content(evidence: Evidence, pictures: Mapping[str, Picture]) -> dict[str, object]:
    """Everything the templates read."""
    first: FirstScreen = build_first_screen(evidence)
    sections: tuple[Section, ...] = (
        *build_result_sections(evidence, pictures),
        *build_run_sections(evidence, pictures),
    )
    return {
        "title": f"Alignment check of {evidence.config.prepare.dataset}",
        "first": first,
        "mark": _MARKS[first.label],
        "sections": sections,
        "run_id": evidence.run_id,
        "style": Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),  # noqa: S704 - our own file
    }


def _make_environment() -> Environment:
    """Autoescape for HTML only; a misspelt name in a template is an error."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(enabled_extensions=("html.j2",), disabled_extensions=("md.j2",), default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        line=to_html,
        svg=to_inline_svg,
        md=to_markdown,
        cell=to_markdown_cell,
        fence=to_fence,
    )
    environment.filters.update(two_digits=TWO_DIGITS.write, signed=SIGNED_TWO_DIGITS.write)
    return environment


def to_inline_svg(picture: Picture) -> Markup:
    """A figure as part of the page; the drawing library has escaped every text in it."""
    return Markup(picture.inline())  # noqa: S704


def to_html(shown: Line) -> Markup:
    """A line with every number marked up with its exact value and its field."""
    return Markup("").join(_mark_up(part) for part in shown)


def _mark_up(part: str | Number | Interval) -> Markup:
    if isinstance(part, Interval):
        return Markup('<span class="interval">[{}, {}]</span>').format(_mark_up(part.low), _mark_up(part.high))
    if isinstance(part, Number):
        field = Markup(' data-field="{}"').format(part.field) if part.field else Markup("")
        return Markup('<data value="{}"{}>{}</data>').format(repr(part.value), field, part.text)
    return escape(part)


def to_markdown(shown: Line | str) -> str:
    """A line as Markdown that shows its text and nothing else."""
    text = shown if isinstance(shown, str) else plain(shown)
    return _MARKDOWN_SPECIAL.sub(r"\\\1", " ".join(text.split()))


def to_markdown_cell(shown: Line | str) -> str:
    """The same inside a table; an empty cell keeps its place."""
    return to_markdown(shown) or " "


def to_fence(text: str) -> str:
    """Untrusted text in a fence that nothing in it can close."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"
