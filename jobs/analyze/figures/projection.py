"""Where prompts lie: a plane fitted on the base model's representation, with both models in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from jobs.analyze.figures.paired import LABELS, MANY, draw_points
from jobs.analyze.figures.style import INK, PAPER, Picture, finish, house_style, new_figure, put_legend


def project(
    base: NDArray[np.float32], tuned: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[float, float]]:
    """The first two principal components of the base, applied to both models.

    Args:
        base: [N, D], N >= 3, D >= 2.
        tuned: the same shape.

    Returns:
        Both projections [N, 2] and the shares of the base's variance on the two axes.
    """
    from scipy.linalg import eigh

    middle = base.mean(axis=0, dtype=np.float64)
    states = base - middle
    wide = states.shape[0] <= states.shape[1]
    # The smaller of the two products has the same eigenvalues; only the two largest are needed.
    product = states @ states.T if wide else states.T @ states
    size = len(product)
    values, vectors = eigh(product, subset_by_index=(size - 2, size - 1))
    axes = (states.T @ vectors if wide else vectors)[:, ::-1]
    axes /= np.maximum(np.linalg.norm(axes, axis=0), np.finfo(np.float64).tiny)
    # An eigenvector's sign is arbitrary: its largest entry points up.
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), (0, 1)])
    shares = values[::-1] / np.trace(product)
    return states @ axes, (tuned - middle) @ axes, (float(shares[0]), float(shares[1]))


def draw_projection(base: NDArray[np.float32], tuned: NDArray[np.float32], labels: Sequence[str]) -> Picture:
    """Two panels with shared axes: base and tuned, safe and unsafe prompts.

    Args:
        base: the scored representation [N, D].
        tuned: the same of the tuned model.
        labels: "safe" or "unsafe" per row.
    """
    unsafe = np.asarray([label == "unsafe" for label in labels])
    base_plane, tuned_plane, shares = project(base, tuned)
    with house_style():
        figure = new_figure(3.4, gap=0.06)
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        for axes, title, plane in zip(panels, ("base", "tuned"), (base_plane, tuned_plane), strict=True):
            for label in LABELS:
                rows = unsafe == (label == "unsafe")
                draw_points(axes, plane[rows].tolist(), label, gid=f"points-{title}-{label}", many=len(labels) > MANY)
                middle = plane[rows].mean(axis=0)
                axes.plot(*middle, marker="+", color=PAPER, markersize=15, markeredgewidth=3.0, zorder=4)
                axes.plot(*middle, marker="+", color=INK, markersize=12, markeredgewidth=1.4, zorder=5)
            axes.set_title(title)
            axes.locator_params(axis="x", nbins=5)
            axes.set_xlabel(f"axis 1 ({100 * shares[0]:.2g} % of base variance)")
        panels[0].set_ylabel(f"axis 2 ({100 * shares[1]:.2g} %)")
        put_legend(figure, panels[0])
        picture = finish(
            figure,
            "projection",
            f"Two scatter plots of {len(labels)} prompts in one plane, base and tuned; {int(unsafe.sum())} unsafe "
            "prompts.",
            "The representation that is scored, on the two principal axes of the base model; crosses: group means. A "
            "flat picture of many dimensions: for looking only, no score is computed from it.",
        )
    moved = np.linalg.norm(tuned_plane - base_plane, axis=1)
    groups = {
        f"points-{title}-{label}": tuple(np.flatnonzero(unsafe == (label == "unsafe")).tolist())
        for title in ("base", "tuned")
        for label in LABELS
    }
    order = tuple(np.argsort(-moved, kind="stable").tolist())
    return replace(picture, points={} if len(labels) > MANY else groups, order=order)
