"""The loss curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from matplotlib.axes import Axes

from jobs.analyze.figures.style import (
    COLOUR,
    INK,
    MUTED,
    Picture,
    count_along,
    finish,
    house_style,
    new_figure,
    put_legend,
    say_nothing_to_draw,
)

_BESIDE: Final = (("learning_rate", "learning rate"), ("grad_norm", "gradient norm"))


def draw_training(rows: Sequence[Mapping[str, Any]]) -> Picture:
    """Loss per optimizer step, and below it the learning rate and the gradient's norm before clipping.

    Args:
        rows: rows of the table `training_metrics`; what a row lacks is left out.
    """
    curves = {split: _collect(rows, split, "loss") for split in ("train", "validation")}
    with house_style():
        if not any(curves.values()):
            figure = new_figure(2.0)
            say_nothing_to_draw(figure.subplots(), "No loss was recorded.")
            return finish(figure, "training_loss", "No loss was recorded.", "Training loss: not recorded.")
        figure = new_figure(4.4, gap=0.06)
        below = [name for name, _ in _BESIDE]
        panels: dict[str, Axes] = figure.subplot_mosaic([["loss", "loss"], below], height_ratios=(3, 2))
        axes = panels["loss"]
        if curves["train"]:
            steps, losses = zip(*curves["train"], strict=True)
            axes.plot(steps, losses, color=MUTED, linewidth=1.4, label="training")
        if curves["validation"]:
            steps, losses = zip(*curves["validation"], strict=True)
            axes.plot(steps, losses, "s-", color=COLOUR["tuned"], markeredgecolor=INK, markersize=6, label="validation")
        axes.set_ylabel("loss (nats per token)")
        axes.set_ylim(bottom=0)
        count_along(axes)
        for name, title in _BESIDE:
            _draw_beside(panels[name], title, _collect(rows, "train", name))
        put_legend(figure, axes)
        ends = {split: curve[-1] for split, curve in curves.items() if curve}
        named = "; ".join(f"{split} {loss:.3g} at step {step}" for split, (step, loss) in ends.items())
        return finish(
            figure,
            "training_loss",
            f"Loss over optimizer steps; last values: {named}. Below: learning rate and gradient norm.",
            "By optimizer step. Above: mean negative log-likelihood per answer token. Below: learning rate, and L2 "
            "norm of the gradient before clipping.",
        )


def _collect(rows: Sequence[Mapping[str, Any]], split: str, name: str) -> list[tuple[int, float]]:
    """(step, value) in the order of the steps."""
    return sorted((row["step"], row[name]) for row in rows if row["split"] == split and row.get(name) is not None)


def _draw_beside(axes: Axes, title: str, curve: list[tuple[int, float]]) -> None:
    axes.set_title(title)
    axes.set_xlabel("optimizer step")
    if not curve:
        say_nothing_to_draw(axes, f"{title}: not recorded")
        return
    steps, values = zip(*curve, strict=True)
    axes.plot(steps, values, color=MUTED, linewidth=1.2)
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 4))
    axes.locator_params(axis="y", nbins=4)
    count_along(axes)
