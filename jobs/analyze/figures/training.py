"""The loss curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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


def draw_training(rows: Sequence[Mapping[str, Any]]) -> Picture:
    """Training and validation loss per optimizer step.

    Args:
        rows: rows of the table `training_metrics`; a row without a loss is left out.
    """
    curves = {
        split: sorted((row["step"], row["loss"]) for row in rows if row["split"] == split and row["loss"] is not None)
        for split in ("train", "validation")
    }
    with house_style():
        figure = new_figure(2.9)
        axes = figure.subplots()
        if not any(curves.values()):
            say_nothing_to_draw(axes, "No loss was recorded.")
            return finish(figure, "training_loss", "No loss was recorded.", "Training loss: not recorded.")
        if curves["train"]:
            steps, losses = zip(*curves["train"], strict=True)
            axes.plot(steps, losses, color=MUTED, linewidth=1.4, label="training")
        if curves["validation"]:
            steps, losses = zip(*curves["validation"], strict=True)
            axes.plot(steps, losses, "s-", color=COLOUR["tuned"], markeredgecolor=INK, markersize=6, label="validation")
        axes.set_xlabel("optimizer step")
        axes.set_ylabel("loss (nats per answer token)")
        axes.set_ylim(bottom=0)
        count_along(axes)
        put_legend(figure, axes)
        ends = {split: curve[-1] for split, curve in curves.items() if curve}
        named = "; ".join(f"{split} {loss:.3g} at step {step}" for split, (step, loss) in ends.items())
        return finish(
            figure,
            "training_loss",
            f"Loss over optimizer steps; last values: {named}.",
            "Mean negative log-likelihood per answer token.",
        )
