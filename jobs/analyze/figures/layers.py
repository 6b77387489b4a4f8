"""Separation per layer, base against tuned."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes

from jobs.analyze.figures.style import (
    COLOUR,
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
from pipeline_common.measures import Estimate, GeometryScore, Measures


def draw_layers(measures: Measures) -> Picture:
    """f2 of every layer with its 95 % interval; the layers that the headline is scored on are shaded.

    Args:
        measures: layer scores are those of scope "layer"; entry 0 = embeddings.
    """
    scores = sorted((score for score in measures.geometry if score.scope == "layer"), key=lambda score: int(score.name))
    with house_style():
        figure = new_figure(3.3)
        axes = figure.subplots()
        drawn = [score for score in scores if score.base.f2.value is not None and score.tuned.f2.value is not None]
        if not drawn:
            say_nothing_to_draw(axes, "No layer has a defined score.")
            return finish(figure, "layers", "No layer has a defined score.", "Separation per layer: undefined.")
        depth = int(scores[-1].name)
        for place, (first, last) in enumerate(find_spans(measures.scored_layers)):
            # Half a layer on either side, so that a single one has a width too. One entry in the legend for all.
            label = "scored layers" if place == 0 else "_"
            axes.axvspan(first - 0.5, last + 0.5, color=SHADE, zorder=0, label=label)
        axes.axhline(0, color=MUTED, linewidth=0.8)
        for role in ("base", "tuned"):
            _draw_role(axes, role, drawn)
        gone = [int(score.name) for score in scores if score not in drawn]
        if gone:
            foot = axes.get_xaxis_transform()
            axes.plot(gone, [0.03] * len(gone), "x", color=MUTED, transform=foot, label="undefined", clip_on=False)
        axes.set_xlim(-0.5, depth + 0.5)
        count_along(axes)
        axes.set_xlabel("layer (0 = embeddings, last = after the final norm)")
        axes.set_ylabel("f2: separation, free of n (no unit)")
        put_legend(figure, axes)
        named = "; ".join(
            f"layer {score.name} base {score.base.f2.value:.3g} tuned {score.tuned.f2.value:.3g}" for score in drawn
        )
        return finish(
            figure,
            "layers",
            f"f2 per layer: {named}.",
            "Separation f2 of safe and unsafe prompts after each layer, with 95 % intervals; shaded: the layers "
            "averaged for the headline.",
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


def _draw_role(axes: Axes, role: str, scores: list[GeometryScore]) -> None:
    found: list[tuple[int, Estimate]] = [
        (int(score.name), score.base.f2 if role == "base" else score.tuned.f2) for score in scores
    ]
    layers = [layer for layer, _ in found]
    axes.plot(
        layers,
        [math.nan if estimate.value is None else estimate.value for _, estimate in found],
        color=COLOUR[role],
        marker=MARKER[role],
        markersize=5 if len(layers) <= 20 else 3,
        linewidth=1.6,
        label=role,
    )
    ranged = [(layer, e.low, e.high) for layer, e in found if e.low is not None and e.high is not None]
    if ranged:
        x, low, high = zip(*ranged, strict=True)
        axes.fill_between(x, low, high, color=COLOUR[role], alpha=0.18, linewidth=0)
