"""Each prompt in both models: base along the bottom, tuned along the side; what did not change lies on the diagonal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from matplotlib.axes import Axes

from jobs.analyze.figures.style import (
    MUTED,
    SAFE,
    UNSAFE,
    Picture,
    finish,
    house_style,
    new_figure,
    put_legend,
    say_nothing_to_draw,
)
from jobs.analyze.points import PromptPoint

MANY: Final = 1500
"""From so many prompts on the points are pixels inside the SVG: paths would make it megabytes."""
LABELS: Final = ("safe", "unsafe")
_LOOKS: Final = {"safe": (SAFE, "o"), "unsafe": (UNSAFE, "^")}
_NAME: Final = "prompts"


def draw_paired(points: Sequence[PromptPoint]) -> Picture:
    """Two panels: the place between the labels, and the log-odds of a refusal; base against tuned."""
    with house_style():
        figure = new_figure(3.1, gap=0.08)
        left, right = figure.subplots(1, 2)
        groups: dict[str, tuple[int, ...]] = {}
        drawn = []
        for axes, what, title in (
            (left, "position", "place between the labels"),
            (right, "log_odds", "refusal log-odds (nats)"),
        ):
            axes.set_title(title)
            found = [(index, getattr(point, what)) for index, point in enumerate(points)]
            known = {index: pair for index, pair in found if pair is not None}
            if not known:
                say_nothing_to_draw(axes, f"{title}: not measured")
                continue
            groups |= _draw_panel(axes, what, points, known)
            drawn.append(f"{title} of {len(known)} prompts")
        shown = next((axes for axes in (left, right) if axes.get_legend_handles_labels()[0]), None)
        if shown is not None:
            put_legend(figure, shown)
        picture = finish(
            figure,
            _NAME,
            f"Two scatter plots, base against tuned: {'; '.join(drawn) or 'nothing was measured'}.",
            "Every prompt in both models. Left: -0.5 = at the base's safe centre, 0.5 = at its unsafe one, along the "
            "base's direction, each prompt left out of the centres it is measured by. Right: log-odds of a refusal "
            "opening; below the diagonal the tuned model is less inclined to refuse. For looking only.",
        )
    moved = [index for index, point in enumerate(points) if _moved(point) is not None]
    order = sorted(moved, key=lambda index: _rank(points[index]))
    return replace(picture, points={} if len(points) > MANY else groups, order=tuple(order))


def draw_points(axes: Axes, places: Sequence[Sequence[float]], label: str, *, gid: str, many: bool) -> None:
    """The prompts of one label as marks, each an element of its own in the SVG unless there are too `many`.

    Args:
        axes: to draw into.
        places: one pair per prompt.
        label: "safe" or "unsafe".
        gid: id of the group of marks in the SVG.
        many: draw them as pixels.
    """
    colour, marker = _LOOKS[label]
    axes.plot(
        [place[0] for place in places],
        [place[1] for place in places],
        marker,
        markersize=4,
        markerfacecolor="none",
        markeredgecolor=colour,
        markeredgewidth=0.9,
        alpha=0.75,
        label=f"{label} prompt",
        gid=gid,
        rasterized=many,
    )


def _draw_panel(
    axes: Axes, what: str, points: Sequence[PromptPoint], known: dict[int, tuple[float, float]]
) -> dict[str, tuple[int, ...]]:
    """One scatter plot; which prompts each of its groups of points stands for."""
    groups = {}
    for label in LABELS:
        rows = tuple(index for index in known if points[index].safety_label == label)
        if not rows:
            continue
        name = f"points-{what}-{label}"
        draw_points(axes, [known[index] for index in rows], label, gid=name, many=len(points) > MANY)
        groups[name] = rows
    low = min(min(pair) for pair in known.values())
    high = max(max(pair) for pair in known.values())
    margin = 0.05 * (high - low) or 1.0
    ends = (low - margin, high + margin)
    axes.plot(ends, ends, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
    axes.set(xlim=ends, ylim=ends, xlabel="base", ylabel="tuned", aspect="equal")
    axes.locator_params(nbins=5)
    return groups


def _moved(point: PromptPoint) -> float | None:
    """How far a prompt moved: by its log-odds, where it has none by its place."""
    if point.shift is not None:
        return abs(point.shift)
    return None if point.position is None else abs(point.position[1] - point.position[0])


def _rank(point: PromptPoint) -> tuple[bool, float, str]:
    """Sorts those with log-odds first, the furthest moved first."""
    return point.shift is None, -(_moved(point) or 0.0), point.prompt_id
