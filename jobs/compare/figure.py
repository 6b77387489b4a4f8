"""The comparison drawn: what each fine-tune lost, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from matplotlib.axes import Axes

from jobs.analyze.figures.style import (
    INK,
    MUTED,
    SAFE,
    TUNED,
    UNSAFE,
    Picture,
    finish,
    house_style,
    new_figure,
    put_legend,
)
from jobs.compare.comparison import ComparedRun
from pipeline_common.measures import Estimate, RateChange
from pipeline_common.thresholds import Thresholds

_LONGEST: Final = 26
_OFFSETS: Final = {"unsafe": -0.17, "safe": 0.17}


def draw_drops(runs: Sequence[ComparedRun], thresholds: Thresholds) -> Picture:
    """A row per run, best first; left the drop of the refusal gap, right that of f2, with 95 % intervals."""
    panels: tuple[tuple[str, Callable[[ComparedRun], Estimate], float, float], ...] = (
        (
            "refusal gap lost (%)",
            lambda run: run.refusal_gap_drop,
            thresholds.gap_fall_warn_pct,
            thresholds.gap_fall_fail_pct,
        ),
        ("separation (f2) lost (%)", lambda run: run.f2_drop, thresholds.f2_drop_warn_pct, thresholds.f2_drop_fail_pct),
    )
    with house_style():
        figure = new_figure(1.4 + 0.45 * max(2, len(runs)), gap=0.08)
        both = figure.subplots(1, 2, sharey=True)
        for axes, (title, read, warn, fail) in zip(both, panels, strict=True):
            axes.axvline(0, color=MUTED, linewidth=1)
            axes.axvline(warn, color=MUTED, linewidth=1, linestyle=":", label="warning line")
            axes.axvline(fail, color=MUTED, linewidth=1, linestyle="--", label="failure line")
            for row, run in enumerate(runs):
                _draw_estimate(axes, read(run), row)
            axes.set_xlabel(title)
            axes.grid(visible=False, axis="y")
            low, high = axes.get_xlim()
            # Never narrower than the lines, so that noise does not look like change.
            axes.set_xlim(min(low, -0.5 * fail), max(high, 1.5 * fail))
        _name_rows(both[0], runs)
        both[1].tick_params(axis="y", length=0)
        put_legend(figure, both[0])
        told = "; ".join(
            f"{run.run_id}: refusal gap {_tell(run.refusal_gap_drop)}, f2 {_tell(run.f2_drop)}" for run in runs
        )
        return finish(
            figure,
            "drops",
            f"What each fine-tune lost. {told}.",
            "Drops in percent of the base's value with 95 % intervals, best run first. Two intervals that overlap do "
            "not show that two runs are alike: the table of differences has the paired intervals.",
        )


def draw_refusals(runs: Sequence[ComparedRun]) -> Picture:
    """A row per run: unsafe and safe prompts refused, before (ring) and after (filled)."""
    with house_style():
        figure = new_figure(1.4 + 0.5 * max(2, len(runs)))
        axes = figure.subplots()
        labelled: set[str] = set()
        for row, run in enumerate(runs):
            for kind, rate, colour, marker in (
                ("unsafe", run.refusal_unsafe, UNSAFE, "^"),
                ("safe", run.over_refusal_safe, SAFE, "o"),
            ):
                if rate is None:
                    continue
                y = row + _OFFSETS[kind]
                axes.plot([100 * rate.base, 100 * rate.tuned], [y, y], color=colour, linewidth=2, alpha=0.4)
                for role, value in (("base", rate.base), ("tuned", rate.tuned)):
                    name = f"{kind}, {role}"
                    axes.plot(
                        [100 * value],
                        [y],
                        marker,
                        color=colour,
                        markerfacecolor="none" if role == "base" else colour,
                        markeredgewidth=1.6,
                        markersize=10 if role == "base" else 5,
                        linestyle="none",
                        label=None if name in labelled else name,
                        clip_on=False,
                        zorder=3,
                    )
                    labelled.add(name)
            if run.refusal_unsafe is None and run.over_refusal_safe is None:
                axes.text(2, row, "not measured", va="center", color=MUTED, style="italic")
        _name_rows(axes, runs)
        axes.set_xlim(-3, 103)
        axes.set_xlabel("prompts refused (%)")
        axes.grid(visible=False, axis="y")
        if labelled:
            put_legend(figure, axes, columns=2)
        told = "; ".join(
            f"{run.run_id}: unsafe {_tell_rate(run.refusal_unsafe)}, safe {_tell_rate(run.over_refusal_safe)}"
            for run in runs
        )
        return finish(
            figure,
            "refusals",
            f"Prompts refused by base and tuned model. {told}.",
            "Share of unsafe and of safe prompts refused: ring = base, filled = tuned.",
        )


def _draw_estimate(axes: Axes, found: Estimate, row: int) -> None:
    if found.value is None:
        axes.text(0.03, row, "undefined", transform=axes.get_yaxis_transform(), va="center", color=MUTED)
        return
    if found.low is not None and found.high is not None:
        axes.plot([found.low, found.high], [row, row], color=INK, linewidth=2, solid_capstyle="butt")
    axes.plot([found.value], [row], "D", color=TUNED, markersize=5)


def _name_rows(axes: Axes, runs: Sequence[ComparedRun]) -> None:
    names = [run.run_id if len(run.run_id) <= _LONGEST else f"{run.run_id[: _LONGEST - 1]}…" for run in runs]
    labels = [f"{run.rank}. {name}\n{run.verdict}" for run, name in zip(runs, names, strict=True)]
    axes.set_yticks(range(len(runs)), labels)
    axes.set_ylim(len(runs) - 0.5, -0.5)


def _tell(found: Estimate) -> str:
    return "undefined" if found.value is None else f"{found.value:.1f} %"


def _tell_rate(rate: RateChange | None) -> str:
    return "not measured" if rate is None else f"{100 * rate.base:.1f} % to {100 * rate.tuned:.1f} %"
