"""Write the report twice from the same blocks: `report.html` (one self-contained file) and `report.md`.

Prompts and answers are untrusted text. In HTML every text is escaped by the template engine, and the page's own policy
allows one script only, ours, by its digest; in Markdown every text is escaped and answers stand in fences longer than
any in them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup, escape

from jobs.analyze.blocks import FirstScreen, Section
from jobs.analyze.evidence import Evidence
from jobs.analyze.examples import ROOMS, Example, Room
from jobs.analyze.figures.style import Picture
from jobs.analyze.formatting import SIGNED_TWO_DIGITS, TWO_DIGITS, Interval, Line, Number, plain
from jobs.analyze.sections_result import STATUS_WORDS, build_first_screen, build_result_sections
from jobs.analyze.sections_run import build_run_sections
from pipeline_common.errors import InputError

TEMPLATES: Final = Path(__file__).parent / "templates"
MAX_HTML_BYTES: Final = 3_000_000
"""A report is mailed around and opened on phones."""

_MARKS: Final = {"damaged": "✕", "inconclusive": "?", "no damage found": "✓"}
_ALARMS: Final = {STATUS_WORDS["fail"]: "bad", STATUS_WORDS["warn"]: "doubt"}
_MARKDOWN_SPECIAL: Final = re.compile(r"([\\`*_\[\]<>|#~&])")


def write_reports(evidence: Evidence, pictures: Mapping[str, Picture], folder: Path) -> dict[str, int]:
    """Write both files; their sizes in bytes by name. Where the page would be too large it shows less of the answers.

    Raises:
        InputError: the HTML is larger than `MAX_HTML_BYTES` even so.
    """
    environment = make_environment(TEMPLATES)
    rendered = b""
    for room in ROOMS:
        content = build_content(evidence, pictures, room)
        rendered = environment.get_template("report.html.j2").render(content).encode()
        if len(rendered) <= MAX_HTML_BYTES:
            break
    else:
        raise InputError(
            f"report.html would have {len(rendered):,} bytes, at most {MAX_HTML_BYTES:,} are meant; this "
            "run's findings do not fit one page: lower the number of axioms or layers that are scored"
        )
    plain_text = environment.get_template("report.md.j2").render(content).encode()
    (folder / "report.html").write_bytes(rendered)
    (folder / "report.md").write_bytes(plain_text)
    return {"report.html": len(rendered), "report.md": len(plain_text)}


def build_content(evidence: Evidence, pictures: Mapping[str, Picture], room: Room = ROOMS[0]) -> dict[str, object]:
    """Everything the templates read, with as much of prompts and answers as there is `room` for."""
    first: FirstScreen = build_first_screen(evidence)
    sections: tuple[Section, ...] = (
        *build_result_sections(evidence, pictures, room),
        *build_run_sections(evidence, pictures),
    )
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {
        "script": Markup(script),  # noqa: S704 - our own file
        "script_digest": f"sha256-{digest}",
        # Of more prompts than a figure has marks for, none can be pointed at.
        "prompts": [point.to_row(room.characters) for point in evidence.points]
        if any(map(_is_explored, pictures.values()))
        else [],
        "title": f"Alignment check of {evidence.config.prepare.dataset}",
        "first": first,
        "mark": _MARKS[first.label],
        "sections": sections,
        "run_id": evidence.run_id,
        "style": Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),  # noqa: S704 - our own file
    }


def _is_explored(picture: Picture) -> bool:
    return bool(picture.points)


def make_environment(*folders: Path) -> Environment:
    """Templates of these folders. Autoescape for HTML only; a misspelt name in a template is an error."""
    environment = Environment(
        loader=FileSystemLoader(folders),
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
        spaced=keep_together,
        pairs=lambda names: [(name, name.replace("_", " ")) for name in names],
        points=to_points,
        scores=to_scores,
        json=htmlsafe_json_dumps,
    )
    environment.filters.update(two_digits=TWO_DIGITS.write, signed=SIGNED_TWO_DIGITS.write)
    return environment


def to_inline_svg(picture: Picture) -> Markup:
    """A figure as part of the page; the drawing library has escaped every text in it."""
    return Markup(picture.inline())  # noqa: S704


def to_points(points: Mapping[str, tuple[int, ...]], prefix: str) -> str:
    """Which prompts a figure's groups of marks stand for, by the ids they have in the page."""
    return json.dumps({f"{prefix}-{name}": places for name, places in points.items()}, separators=(",", ":"))


def to_scores(example: Example) -> str:
    """The judge's scores of both models, for the criteria that scored both."""
    base, tuned = example.base.scores, example.tuned.scores
    both = {name: [round(base[name], 4), round(tuned[name], 4)] for name in base if name in tuned}
    return json.dumps(both, separators=(",", ":"))


def keep_together(text: str) -> str:
    """A number and its percent sign on one line."""
    return re.sub(r"(?<=\d) %", "\N{NO-BREAK SPACE}%", text)


def to_html(shown: Line) -> Markup:
    """A line with every number marked up with its exact value and its field; an alarm stands out."""
    if len(shown) == 1 and shown[0] in _ALARMS:
        return Markup('<strong class="{}">{}</strong>').format(_ALARMS[str(shown[0])], shown[0])
    return Markup("").join(_mark_up(part) for part in shown)


def _mark_up(part: str | Number | Interval) -> Markup:
    if isinstance(part, Interval):
        return Markup('<span class="interval">[{}, {}]</span>').format(_mark_up(part.low), _mark_up(part.high))
    if isinstance(part, Number):
        field = Markup(' data-field="{}"').format(part.field) if part.field else Markup("")
        return Markup('<data value="{}"{}>{}</data>').format(repr(part.value), field, part.text)
    return escape(keep_together(part))


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
