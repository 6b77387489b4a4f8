"""Colours, fonts and files of all figures: readable in print, in light and dark, without colour; same bytes twice.

Base is a blue circle, tuned an orange diamond everywhere; safe prompts are green circles, unsafe ones purple triangles
(hues after Okabe & Ito; the shape says it again). Text is drawn as outlines, so a figure looks the same without our
font. Nothing here uses pyplot: no global state, no display.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

INK: Final = "#1b1f24"
MUTED: Final = "#5b6570"
GRID: Final = "#d8dde3"
SHADE: Final = "#eceff2"
PAPER: Final = "#ffffff"
BASE: Final = "#0072b2"
TUNED: Final = "#d55e00"
SAFE: Final = "#009e73"
UNSAFE: Final = "#b0418a"

COLOUR: Final[Mapping[str, str]] = {"base": BASE, "tuned": TUNED}
MARKER: Final[Mapping[str, str]] = {"base": "o", "tuned": "D"}
WIDTH: Final = 5.4
"""Inches: at the width of a phone the 10-point text is still readable."""

_THEMED: Final = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    SHADE: "--shade",
    PAPER: "--paper",
    BASE: "--base",
    TUNED: "--tuned",
    SAFE: "--safe",
    UNSAFE: "--unsafe",
}
_SETTINGS: Final[dict[str, Any]] = {
    "font.family": "DejaVu Sans",
    "font.size": 10.0,
    "axes.titlesize": 10.0,
    "axes.labelsize": 10.0,
    "axes.titlelocation": "left",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    # An axiom's name may hold a dollar sign; it is text, never a formula.
    "text.parse_math": False,
    "axes.unicode_minus": True,
    "legend.frameon": False,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "svg.fonttype": "path",
    "svg.hashsalt": "alignment-check",
}


_MARKS_OF_PROMPTS: Final = re.compile(r'<g id="[\w-]*points-[\w-]*">.*?</g>\s*</g>', re.DOTALL)
_MARK: Final = re.compile(r'\s*<use xlink:href="(#[\w-]+)" x="([\d.-]+)" y="([\d.-]+)" style="([^"]*)"/>\s*')


def _share_style(group: re.Match[str]) -> str:
    """A group of marks with what they have in common said once: thousands of them are most of a report's bytes."""
    marks = list(_MARK.finditer(group[0]))
    if not marks or len({mark[4] for mark in marks}) != 1:
        return group[0]
    head, tail = group[0][: marks[0].start()], group[0][marks[-1].end() :]
    drawn = "".join(f'<use href="{mark[1]}" x="{float(mark[2]):.2f}" y="{float(mark[3]):.2f}"/>' for mark in marks)
    return f'{head}<g style="{marks[0][4]}">{drawn}</g>{tail}'


@dataclass(frozen=True)
class Picture:
    """A finished figure."""

    name: str
    """File name without suffix, and the prefix of its ids in a page."""
    alt: str
    """What it shows, in words, for those who do not see it."""
    caption: str
    svg: str
    png: bytes
    points: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Id of a group of points in the SVG -> the prompts they stand for, as places in the page's list."""
    order: tuple[int, ...] = ()
    """The prompts in the order a reader steps through them."""

    def write(self, folder: Path) -> None:
        """Write `<name>.svg` and `<name>.png`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.name}.svg").write_text(self.svg, encoding="utf-8")
        (folder / f"{self.name}.png").write_bytes(self.png)

    def inline(self) -> str:
        """The SVG as part of an HTML page: no prolog, own ids, colours that follow the page's theme."""
        body = self.svg[self.svg.index("<svg") :]
        body = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
        body = re.sub(r'\bid="', f'id="{self.name}-', body)
        body = re.sub(r'href="#', f'href="#{self.name}-', body)
        body = re.sub(r"url\(#", f"url(#{self.name}-", body)
        for colour, variable in _THEMED.items():
            body = re.sub(re.escape(colour), f"var({variable}, {colour})", body, flags=re.IGNORECASE)
        body = _MARKS_OF_PROMPTS.sub(_share_style, body)
        body = re.sub(r'^<svg([^>]*?) width="[^"]*"', r"<svg\1", body)
        body = re.sub(r'^<svg([^>]*?) height="[^"]*"', r"<svg\1", body)
        return re.sub(
            r"^<svg", f'<svg role="img" focusable="false" aria-label="{html.escape(self.alt)}"', body, count=1
        )


@contextmanager
def house_style() -> Iterator[None]:
    """Matplotlib's own defaults with ours on top, whatever the machine's matplotlibrc says."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)
        yield


def new_figure(height: float, gap: float = 0.02) -> Figure:
    """An empty figure of the common width; `height` in inches, `gap` between panels as a share of a panel's width."""
    return Figure(figsize=(WIDTH, height), layout=ConstrainedLayoutEngine(wspace=gap))


def count_along(axes: Axes) -> None:
    """Whole numbers along the horizontal axis."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def finish(figure: Figure, name: str, alt: str, caption: str) -> Picture:
    """Render to SVG and PNG, without dates or versions in them."""
    svg, png = io.BytesIO(), io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    figure.savefig(png, format="png", dpi=150, metadata={"Software": None})
    return Picture(name, alt, caption, svg.getvalue().decode(), png.getvalue())


def put_legend(figure: Figure, axes: Axes, columns: int = 4) -> None:
    """One legend above everything, where it covers no data."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, handletextpad=0.4, columnspacing=1.4)


def say_nothing_to_draw(axes: Axes, text: str) -> None:
    """Words in place of an empty plot."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", color=MUTED, transform=axes.transAxes, wrap=True)
