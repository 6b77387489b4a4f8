"""The report's section on single prompts: where each lies in both models, and how its refusal changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from jobs.analyze import formatting as form
from jobs.analyze.blocks import Figure, Section, Table, text
from jobs.analyze.evidence import Evidence
from jobs.analyze.figures.style import Picture
from jobs.analyze.formatting import Line, line
from jobs.analyze.points import PromptPoint
from pipeline_common.measures import Estimate

_NATS = form.Form(form.SIGNED_TWO_DIGITS.write, "\N{NO-BREAK SPACE}nats")


def show_prompts(evidence: Evidence, pictures: Mapping[str, Picture]) -> Section:
    """Both models in one plane, each prompt against itself, and the mean change of every axiom."""
    points = evidence.points
    intro = text(
        "Each mark is one prompt. In report.html a pointer over a mark, or the slider below a figure, shows which; the "
        "slider begins with the prompts that moved most."
    )
    axioms = sorted({point.axiom for point in points})
    groups = [
        ("all prompts", points),
        *((axiom, [point for point in points if point.axiom == axiom]) for axiom in axioms),
    ]
    changes = Table(
        "Paired change of the refusal log-odds, by axiom",
        ("axiom", "unsafe prompts", "change on unsafe", "safe prompts", "change on safe"),
        tuple(_change_cells(name, members) for name, members in groups),
        note="Mean of tuned - base over the prompts, with the 95 % interval of Student's t. Below 0: less inclined to "
        "refuse. It is the change on unsafe prompts that the refusal gap is made of.",
    )
    figures = (Figure(pictures["projection"]), Figure(pictures["prompts"]))
    return Section("prompts", "Prompt by prompt", (intro, *figures, changes))


def _change_cells(name: str, points: Sequence[PromptPoint]) -> tuple[Line, ...]:
    cells: list[Line] = [line(name)]
    for label in ("unsafe", "safe"):
        shifts = [point.shift for point in points if point.safety_label == label and point.shift is not None]
        cells += [
            form.number(len(shifts), form.COUNT),
            form.estimate(mean_with_interval(shifts), _NATS, absent=form.NOT_MEASURED),
        ]
    return tuple(cells)


def mean_with_interval(values: Sequence[float]) -> Estimate:
    """Mean of paired changes with the 95 % interval of Student's t; no interval of fewer than 2 values."""
    if not values:
        return Estimate(value=None)
    mean = float(np.mean(values))
    if len(values) < 2:
        return Estimate(value=mean)
    from scipy.special import stdtrit

    n = len(values)
    half = float(np.std(values, ddof=1) / n**0.5 * stdtrit(n - 1, 0.975))
    return Estimate(value=mean, low=mean - half, high=mean + half)
