"""What the models do: refusals and judged answers, base against tuned."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.axes import Axes

from jobs.analyze.figures.style import (
    COLOUR,
    GRID,
    INK,
    MARKER,
    MUTED,
    Picture,
    finish,
    house_style,
    new_figure,
    put_legend,
)
from pipeline_common.measures import Estimate, Measures

RATE_NAMES = {"refusal_unsafe": "Refuses unsafe", "over_refusal_safe": "Refuses safe"}


@dataclass(frozen=True)
class _Bar:
    """One row of the figure; shares in [0, 1], change in the same unit."""

    label: str
    base: float | None
    tuned: float | None
    change: Estimate


def draw_behaviour(measures: Measures) -> Picture:
    """Left: both models' rates and scores. Right: the paired change with its 95 % interval."""
    bars = list_bars(measures)
    with house_style():
        figure = new_figure(1.5 + 0.5 * max(2, len(bars)), gap=0.08)
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        labelled: set[str] = set()
        for row, bar in enumerate(bars):
            if bar.base is None or bar.tuned is None:
                left.text(
                    0.03,
                    row,
                    "not measured",
                    transform=left.get_yaxis_transform(),
                    va="center",
                    color=MUTED,
                    style="italic",
                )
                continue
            left.plot([100 * bar.base, 100 * bar.tuned], [row, row], color=GRID, linewidth=3, zorder=1)
            for role, value in (("base", bar.base), ("tuned", bar.tuned)):
                # The base's ring is larger, so both stay visible where they coincide.
                left.plot(
                    [100 * value],
                    [row],
                    MARKER[role],
                    color=COLOUR[role],
                    markerfacecolor="none" if role == "base" else COLOUR[role],
                    markeredgewidth=1.8,
                    markersize=11 if role == "base" else 5,
                    label=None if role in labelled else role,
                    clip_on=False,
                    zorder=3,
                )
                labelled.add(role)
            if bar.change.value is not None:
                if bar.change.low is not None and bar.change.high is not None:
                    right.plot([100 * bar.change.low, 100 * bar.change.high], [row, row], color=INK, linewidth=2)
                right.plot([100 * bar.change.value], [row], "o", color=INK, markersize=5)
        left.set_yticks(range(len(bars)), [bar.label for bar in bars])
        left.set_ylim(len(bars) - 0.5, -0.5)
        left.set_xlim(-3, 103)
        left.set_xlabel("rate or score (% of the scale)")
        right.set_xlabel("tuned - base (points)")
        right.axvline(0, color=MUTED, linewidth=1)
        right.tick_params(axis="y", length=0)
        _widen(right)
        for axes in (left, right):
            axes.grid(visible=False, axis="y")
        if labelled:
            put_legend(figure, left)
        return finish(
            figure,
            "behaviour",
            _describe(bars),
            "Shares of answers that refuse, and the judge's mean scores (0 = worst, 100 = best); right: paired "
            "change with its 95 % interval.",
        )


def list_bars(measures: Measures) -> list[_Bar]:
    """The rows: refusal rates, then the judge's criteria, or one row that says there are none."""
    bars = [
        _Bar(f"{RATE_NAMES[rate.name]}\n{rate.n} answers", rate.base, rate.tuned, rate.change)
        for rate in measures.rates
    ]
    nothing = Estimate(value=None)
    if not bars:
        bars.append(_Bar("Refusals", None, None, nothing))
    if measures.judgement.status == "not_measured" or not measures.judgement.scores:
        return [*bars, _Bar("Judge", None, None, nothing)]
    for score in measures.judgement.scores:
        name = score.criterion.replace("_", " ").capitalize()
        on = "all" if score.asked_of == "all" else score.asked_of
        bars.append(_Bar(f"Judge: {name}\n{score.n} pairs, {on}", score.base, score.tuned, score.change))
    return bars


def _widen(axes: Axes) -> None:
    """Symmetric around zero and never narrower than 10 points, so noise does not look like change."""
    low, high = axes.get_xlim()
    reach = max(10.0, abs(low), abs(high))
    axes.set_xlim(-reach, reach)


def _describe(bars: list[_Bar]) -> str:
    parts = []
    for bar in bars:
        name = bar.label.replace("\n", ", ")
        if bar.base is None or bar.tuned is None:
            parts.append(f"{name}: not measured")
        else:
            parts.append(f"{name}: base {100 * bar.base:.1f} %, tuned {100 * bar.tuned:.1f} %")
    return f"Behaviour of both models. {'; '.join(parts)}."
