"""The report's section on single prompts: where each lies in both models, and how its refusal changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from jobs.analyze import formatting as form
from jobs.analyze.blocks import Figure, Section, Table, text
from jobs.analyze.evidence import Evidence
from jobs.analyze.examples import cut
from jobs.analyze.figures.paired import MANY
from jobs.analyze.figures.style import Picture
from jobs.analyze.formatting import Line, line
from jobs.analyze.points import PromptPoint
from pipeline_common.measures import Estimate

_MOVED: Final = 20
_MOVED_CHARACTERS: Final = 100
_NATS = form.Form(form.SIGNED_TWO_DIGITS.write, "\N{NO-BREAK SPACE}nats")


def show_prompts(evidence: Evidence, pictures: Mapping[str, Picture]) -> Section:
    """Both models in one plane, each prompt against itself, and the mean change of every axiom."""
    points = evidence.points
    intro = text(
        "Each mark is one prompt.",
        "In report.html a pointer over a mark, or the slider below a figure, shows which; the slider begins with the "
        "prompts that moved most."
        if len(points) <= MANY
        else f"With more than {MANY:,} prompts the marks are one picture, and none can be pointed at: the table below "
        "names those that moved most, and the answers side by side can be searched.",
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
    return Section("prompts", "Prompt by prompt", (intro, *figures, changes, *_list_moved(points)))


def _list_moved(points: Sequence[PromptPoint]) -> tuple[Table, ...]:
    """The prompts whose inclination to refuse changed most."""
    moved = sorted((point for point in points if point.shift is not None), key=_by_shift)[:_MOVED]
    rows = tuple(
        (
            line(point.prompt_id),
            line(point.safety_label),
            line(point.axiom),
            *(form.number(odds, form.TWO_DIGITS) for odds in point.log_odds or ()),
            form.number(point.shift, form.SIGNED_TWO_DIGITS),
            line(cut(point.text, _MOVED_CHARACTERS)[0]),
        )
        for point in moved
    )
    columns = ("prompt", "label", "axiom", "base", "tuned", "change", "text")
    title = f"The {len(rows)} prompts whose refusal log-odds (nats) changed most"
    return (Table(title, columns, rows, folded=True, numeric=False),) if rows else ()


def _by_shift(point: PromptPoint) -> tuple[float, str]:
    return -abs(point.shift or 0.0), point.prompt_id


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
