"""Separation per layer, base against tuned."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes

from jobs.analyze.figures.style import (
    COLOUR,
    INK,
    MARKER,
    MUTED,
    SHADE,
    Picture,
    count_along,
    finish,
    house_style,
    new_figure,
    put_legend,
    say_nothing_to_draw,
)
from pipeline_common.measures import Estimate, Measures


def draw_layers(measures: Measures) -> Picture:
    """Above: AQI of every layer in both models; below: the paired f2 drop. Shaded: the layers of the headline.

    Args:
        measures: layer scores are those of scope "layer"; entry 0 = embeddings.
    """
    scores = sorted((score for score in measures.geometry if score.scope == "layer"), key=lambda score: int(score.name))
    with house_style():
        drawn = [score for score in scores if score.base.aqi.value is not None and score.tuned.aqi.value is not None]
        if not drawn:
            figure = new_figure(2.0)
            say_nothing_to_draw(figure.subplots(), "No layer has a defined score.")
            return finish(figure, "layers", "No layer has a defined score.", "Separation per layer: undefined.")
        figure = new_figure(4.6)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        depth = int(scores[-1].name)
        for axes in (above, below):
            for place, (first, last) in enumerate(find_spans(measures.scored_layers)):
                # Half a layer on either side, so that a single one has a width too. One entry in the legend for all.
                label = "scored layers" if place == 0 else "_"
                axes.axvspan(first - 0.5, last + 0.5, color=SHADE, zorder=0, label=label)
            axes.axhline(0, color=MUTED, linewidth=0.8)
        for role in ("base", "tuned"):
            found = [(int(score.name), score.base.aqi if role == "base" else score.tuned.aqi) for score in drawn]
            _draw_curve(above, found, COLOUR[role], MARKER[role], role)
        _draw_curve(below, [(int(score.name), score.f2_drop_pct) for score in drawn], INK, "o", "_")
        gone = [int(score.name) for score in scores if score not in drawn]
        if gone:
            foot = above.get_xaxis_transform()
            above.plot(gone, [0.03] * len(gone), "x", color=MUTED, transform=foot, label="undefined", clip_on=False)
        below.set_xlim(-0.5, depth + 0.5)
        count_along(below)
        below.set_xlabel("layer (0 = embeddings, last = after the final norm)")
        above.set_ylabel("AQI (no unit)")
        below.set_ylabel("f2 drop (%)")
        put_legend(figure, above)
        named = "; ".join(
            f"layer {score.name} base {score.base.aqi.value:.3g} tuned {score.tuned.aqi.value:.3g}" for score in drawn
        )
        return finish(
            figure,
            "layers",
            f"AQI per layer: {named}.",
            "Separation of safe and unsafe prompts after each layer, with 95 % intervals. Above: AQI of both models. "
            "Below: f2 drop in percent of the base's, paired by prompt; above 0 = separation was lost. Shaded: the "
            "layers averaged for the headline.",
        )


def find_spans(layers: Sequence[int]) -> list[tuple[int, int]]:
    """First and last of every run of neighbouring layers; `layers` in ascending order."""
    spans: list[tuple[int, int]] = []
    for layer in layers:
        if spans and layer == spans[-1][1] + 1:
            spans[-1] = (spans[-1][0], layer)
        else:
            spans.append((layer, layer))
    return spans


def _draw_curve(axes: Axes, found: list[tuple[int, Estimate]], colour: str, marker: str, label: str) -> None:
    """Values over layers with their intervals; gaps where a value is undefined."""
    axes.plot(
        [layer for layer, _ in found],
        [math.nan if estimate.value is None else estimate.value for _, estimate in found],
        color=colour,
        marker=marker,
        markersize=5 if len(found) <= 20 else 3,
        linewidth=1.6,
        label=label,
    )
    ranged = [(layer, e.low, e.high) for layer, e in found if e.low is not None and e.high is not None]
    if ranged:
        x, low, high = zip(*ranged, strict=True)
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
        if len(ranged) == 1:
            axes.plot([x[0], x[0]], [low[0], high[0]], color=colour, linewidth=2)
