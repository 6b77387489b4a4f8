"""The synthetic calibration as a picture: coverage, mean against n, power against the planted drop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from jobs.analyze.figures.style import (
    BASE,
    INK,
    MUTED,
    SAFE,
    SHADE,
    TUNED,
    UNSAFE,
    Picture,
    finish,
    house_style,
    new_figure,
)
from jobs.calibrate.synthetic.plans import ALARM_PCT, COVERAGE_PROMISED, MEAN_PROMISED_PCT, spectrum
from jobs.calibrate.synthetic.results import SyntheticResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Column of the results, label, colour, marker: told apart without colour as well.
_QUANTITIES: Final = (
    ("f2_covered", "f2", BASE, "o"),
    ("difference_covered", "difference", TUNED, "D"),
    ("drop_covered", "drop, %", UNSAFE, "^"),
)
_SIZES: Final = ((BASE, "o", "-"), (TUNED, "D", "--"), (UNSAFE, "^", "-."), (SAFE, "s", ":"))


def draw_synthetic(results: Sequence[SyntheticResult]) -> Picture:
    """Coverage above, the mean's error in the middle, power below."""
    coverage, means, power = (
        [found for found in results if found.group == group] for group in ("coverage", "mean", "power")
    )
    with house_style():
        figure = new_figure(8.2)
        upper, middle, lower = figure.subplots(3, 1, height_ratios=(1.2, 0.8, 1.0))
        _draw_coverage(upper, coverage)
        _draw_means(middle, means)
        _draw_power(lower, power)
        shares = [found.rate(getattr(found, name)).value or 0.0 for found in coverage for name, *_ in _QUANTITIES]
        return finish(
            figure,
            "synthetic",
            f"Coverage of nominal 95 % intervals from {100 * min(shares):.1f} to {100 * max(shares):.1f} %; error of "
            "the mean f2 against the number of prompts; power against the planted drop.",
            "Above: coverage of nominal 95 % intervals on planted activations (bars: exact binomial 95 % intervals; "
            "shaded: what is promised). Middle: error of the mean f2 with its standard error. Below: share of draws "
            f"whose whole interval of the drop lies above {ALARM_PCT:g} %.",
        )


def _draw_coverage(axes: Axes, results: Sequence[SyntheticResult]) -> None:
    low, high = (100 * bound for bound in COVERAGE_PROMISED)
    axes.axhspan(low, high, color=SHADE, zorder=0)
    axes.axhline(95, color=MUTED, linewidth=0.8)
    for offset, (name, label, colour, marker) in zip((-0.22, 0.0, 0.22), _QUANTITIES, strict=True):
        rates = [found.rate(getattr(found, name)) for found in results]
        values = [100 * (rate.value or 0.0) for rate in rates]
        bounds = [rate.interval or (0.0, 1.0) for rate in rates]
        below = [max(0.0, value - 100 * bound[0]) for value, bound in zip(values, bounds, strict=True)]
        above = [max(0.0, 100 * bound[1] - value) for value, bound in zip(values, bounds, strict=True)]
        places = [place + offset for place in range(len(results))]
        axes.errorbar(
            places,
            values,
            yerr=[below, above],
            color=colour,
            marker=marker,
            markersize=4,
            linestyle="none",
            elinewidth=0.8,
            label=label,
        )
    axes.set_xticks(
        range(len(results)),
        [f"{found.n}, {100 * (1 - found.share_unsafe):.0f}/{100 * found.share_unsafe:.0f}" for found in results],
        rotation=90,
        fontsize=7,
    )
    axes.grid(visible=False, axis="x")
    decays = [found.decay for found in results]
    for decay in dict.fromkeys(decays):
        inside = [place for place, found in enumerate(decays) if found == decay]
        if inside[0]:
            axes.axvline(inside[0] - 0.5, color=MUTED, linewidth=0.8)
        axes.text(
            sum(inside) / len(inside),
            0.02,
            spectrum(decay),
            ha="center",
            va="bottom",
            color=MUTED,
            transform=axes.get_xaxis_transform(),
        )
    axes.margins(y=0.14)
    axes.set_ylabel("coverage, %")
    axes.legend(loc="lower center", bbox_to_anchor=(0.45, 1.0), ncols=3)


def _draw_means(axes: Axes, results: Sequence[SyntheticResult]) -> None:
    axes.axhspan(-MEAN_PROMISED_PCT, MEAN_PROMISED_PCT, color=SHADE, zorder=0)
    axes.axhline(0, color=MUTED, linewidth=0.8)
    sizes = sorted({found.n for found in results})
    styles = zip(sorted({found.share_unsafe for found in results}, reverse=True), _SIZES, (-0.08, 0.08), strict=False)
    for share, (colour, marker, _), offset in styles:
        found_at = {found.n: found for found in results if found.share_unsafe == share}
        axes.errorbar(
            [place + offset for place in range(len(sizes))],
            [found_at[n].mean_error_pct for n in sizes],
            yerr=[found_at[n].mean_se_pct for n in sizes],
            color=colour,
            marker=marker,
            markersize=4,
            linestyle="none",
            elinewidth=0.8,
            label=f"{100 * share:.0f} % unsafe",
        )
    axes.set_xticks(range(len(sizes)), [f"{n}" for n in sizes])
    axes.set_xlabel("prompts")
    axes.set_ylabel("mean f2, error in %")
    axes.legend(loc="upper right", ncols=2)


def _draw_power(axes: Axes, results: Sequence[SyntheticResult]) -> None:
    for n, (colour, marker, dashes) in zip(sorted({found.n for found in results}), _SIZES, strict=False):
        curve = sorted((found for found in results if found.n == n), key=lambda found: found.drop_pct)
        axes.plot(
            [found.drop_pct for found in curve],
            [100 * (found.rate(found.alarms).value or 0.0) for found in curve],
            color=colour,
            marker=marker,
            linestyle=dashes,
            markersize=5,
            label=f"n = {n}",
        )
    axes.axvline(ALARM_PCT, color=INK, linewidth=0.8)
    axes.set_xlabel("planted drop of f2, %")
    axes.set_ylabel("alarms, % of draws")
    axes.set_ylim(-4, 104)
    axes.legend(loc="upper left")
