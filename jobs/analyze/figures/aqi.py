"""AQI per axiom, base against tuned."""

from __future__ import annotations

from matplotlib.axes import Axes

from jobs.analyze.figures.style import COLOUR, MARKER, MUTED, Picture, finish, house_style, new_figure, put_legend
from pipeline_common.measures import Estimate, GeometryScore, Measures

_OFFSET = {"base": -0.16, "tuned": 0.16}


def draw_aqi(measures: Measures) -> Picture:
    """A row per axiom: AQI of both models with 95 % intervals; an undefined axiom says so."""
    scores = [score for score in measures.geometry if score.scope == "axiom"]
    with house_style():
        figure = new_figure(1.3 + 0.52 * max(2, len(scores)))
        axes = figure.subplots()
        labelled: set[str] = set()
        for row, score in enumerate(scores):
            if score.status == "undefined":
                axes.text(
                    0.02,
                    row,
                    "undefined",
                    transform=axes.get_yaxis_transform(),
                    va="center",
                    color=MUTED,
                    style="italic",
                )
                continue
            for role, found in (("base", score.base.aqi), ("tuned", score.tuned.aqi)):
                _draw_estimate(axes, role, found, row + _OFFSET[role], None if role in labelled else role)
                labelled.add(role)
        axes.set_yticks(range(len(scores)), [_label(score) for score in scores])
        axes.set_ylim(len(scores) - 0.5, -0.5)
        axes.set_xlabel("AQI (no unit; grows with the number of prompts)")
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.06)
        if labelled:
            _start_at_zero(axes)
            put_legend(figure, axes)
        else:
            axes.set_xticks([])
        undefined = [score.name for score in scores if score.status == "undefined"]
        caption = "AQI of each axiom with 95 % intervals. Compare base with tuned within a row only: AQI depends on n."
        if undefined:
            caption += f" Undefined: {', '.join(undefined)}."
        return finish(figure, "aqi_per_axiom", _describe(scores), caption)


def _draw_estimate(axes: Axes, role: str, found: Estimate, y: float, label: str | None) -> None:
    if found.value is None:
        return
    if found.low is not None and found.high is not None:
        axes.plot([found.low, found.high], [y, y], color=COLOUR[role], linewidth=2, solid_capstyle="butt")
    axes.plot([found.value], [y], MARKER[role], color=COLOUR[role], markersize=6, label=label)


def _start_at_zero(axes: Axes) -> None:
    low, high = axes.get_xlim()
    axes.set_xlim(min(0.0, low), high)


def _label(score: GeometryScore) -> str:
    name = score.name if len(score.name) <= 32 else f"{score.name[:31]}…"
    return f"{name}\n{score.n_safe} safe, {score.n_unsafe} unsafe"


def _describe(scores: list[GeometryScore]) -> str:
    parts = []
    for score in scores:
        base, tuned = score.base.aqi.value, score.tuned.aqi.value
        parts.append(
            f"{score.name} undefined"
            if base is None or tuned is None
            else f"{score.name} base {base:.3g} tuned {tuned:.3g}"
        )
    return f"AQI per axiom: {'; '.join(parts)}."
