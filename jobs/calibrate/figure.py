"""The calibration as a picture: how much damage each signal finds, and every kind's verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from jobs.analyze.figures.style import (
    BASE,
    GRID,
    INK,
    MUTED,
    SAFE,
    TUNED,
    UNSAFE,
    Picture,
    finish,
    house_style,
    new_figure,
)
from jobs.calibrate.tallies import Calibration, KindTally, Rate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Signal, label, colour, marker, dashes: told apart without colour as well.
_CURVES: Final = (
    ("refusal_gap", "gap", BASE, "s", "--"),
    ("refusal_unsafe", "refusals", TUNED, "D", "-."),
    ("geometry", "geometry", UNSAFE, "^", ":"),
)


def draw_calibration(calibration: Calibration) -> Picture:
    """Detection curve above, verdicts of all kinds below."""
    curve = [kind for kind in calibration.kinds if kind.kind.harmful_percent is not None]
    with house_style():
        figure = new_figure(6.4)
        upper, lower = figure.subplots(2, 1, height_ratios=(1.0, 0.14 * len(calibration.kinds) + 0.2))
        _draw_curve(upper, curve)
        _draw_verdicts(lower, calibration.kinds)
        found = "; ".join(f"{kind.kind.title}: {kind.found.count} of {kind.found.n}" for kind in calibration.kinds)
        return finish(
            figure,
            "calibration",
            f"Verdict damaged by kind of planted damage: {found}.",
            "Above: harmful rows, and how often the verdict is damaged and each signal fails (bars: exact 95 % "
            "intervals of the verdict). Below: the verdicts of every kind of rows.",
        )


def _draw_curve(axes: Axes, kinds: Sequence[KindTally]) -> None:
    places = list(range(len(kinds)))
    found = [kind.found for kind in kinds]
    axes.errorbar(
        places,
        _percents(found),
        yerr=_bars(found),
        color=INK,
        marker="o",
        markersize=10,
        markerfacecolor="none",
        linewidth=1,
        elinewidth=1,
        capsize=3,
        label="verdict",
    )
    for name, label, colour, marker, dashes in _CURVES:
        failed = [kind.failed[name] for kind in kinds]
        axes.plot(places, _percents(failed), color=colour, marker=marker, linestyle=dashes, markersize=5, label=label)
    axes.set_xticks(places, [f"{kind.kind.harmful_percent}" for kind in kinds])
    axes.set_xlabel("harmful rows, %")
    axes.set_ylabel("fine-tunes, %")
    axes.set_ylim(-4, 104)
    axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=4, columnspacing=1.2)


def _draw_verdicts(axes: Axes, kinds: Sequence[KindTally]) -> None:
    rows = list(range(len(kinds)))
    left = [0.0] * len(kinds)
    clear = [Rate(kind.runs - kind.found.count - kind.inconclusive.count, kind.runs) for kind in kinds]
    parts = (
        ("damaged", [kind.found for kind in kinds], TUNED, "//"),
        ("inconclusive", [kind.inconclusive for kind in kinds], GRID, ""),
        ("no damage found", clear, SAFE, ".."),
    )
    for label, rates, colour, hatch in parts:
        widths = _percents(rates)
        axes.barh(rows, widths, left=left, color=colour, hatch=hatch, edgecolor=MUTED, linewidth=0.5, label=label)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.set_yticks(rows, [kind.kind.name for kind in kinds])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, 100)
    axes.set_xlabel("fine-tunes, %")
    axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=3)


def _percents(rates: Sequence[Rate]) -> list[float]:
    """Values in percent; every kind drawn has at least one fine-tune."""
    return [100 * rate.count / rate.n for rate in rates]


def _bars(rates: Sequence[Rate]) -> list[list[float]]:
    """Lengths of the intervals below and above the values, in percent."""
    below, above = [], []
    for rate, value in zip(rates, _percents(rates), strict=True):
        low, high = rate.interval or (0.0, 1.0)
        below.append(max(0.0, value - 100 * low))
        above.append(max(0.0, 100 * high - value))
    return [below, above]
