"""The report's section on the controls."""

from __future__ import annotations

from jobs.analyze import formatting as form
from jobs.analyze.blocks import Section, Table, text
from jobs.analyze.controls import TITLES, describe_control, explains
from jobs.analyze.evidence import Evidence
from jobs.analyze.formatting import Form, Line, line
from pipeline_common.diagnostic_measures import Control

_FORMS: dict[str, Form] = {"AUC": form.TWO_DIGITS, "f2": form.SIGNIFICANT, "AQI": form.SIGNIFICANT}


def show_controls(evidence: Evidence) -> Section:
    """What besides alignment tells the prompts apart: the numbers, then each in a sentence and how it was measured."""
    measures, thresholds = evidence.measures, evidence.config.analyze.thresholds
    controls = measures.controls
    title = "Controls"
    if not controls:
        return Section("controls", title, (text("No control was measured."),))
    intro = text(
        "Safe and unsafe prompts differ in more than their label. A probe on nothing but their words, lengths, sources "
        "or axioms shows how much of the label each gives away; the same probe on the hidden states is the measure to "
        "compare with. AUC: 0.5 = chance, 1 = perfect. A control explains the separation when its AUC above chance is "
        f"at least {100 * thresholds.control_explains_share:g} % of the states'. The verdict's label does not read the "
        "controls: both models meet the same prompts."
    )
    numbers = Table(
        "What else tells the prompts apart",
        ("control", "unit", "prompts or base", "tuned", "explains the separation"),
        tuple(_number_cells(control, explaining=explains(control, controls, thresholds)) for control in controls),
        note="In brackets: 95 % interval of an AUC and of the embeddings' f2; the central 95 % of the draws where "
        "labels are shuffled or made wrong.",
    )
    words = Table(
        "What each control says, and how it was measured",
        ("control", "finding", "how"),
        tuple(
            (line(TITLES[control.name]), line(describe_control(control, measures, thresholds)), line(control.how))
            for control in controls
        ),
        numeric=False,
    )
    return Section("controls", title, (intro, numbers, words))


def _number_cells(control: Control, *, explaining: bool) -> tuple[Line, ...]:
    field, shape = f"evaluation_summary/control:{control.name}", _FORMS[control.unit]
    tuned = line() if control.tuned is None else form.number(control.tuned.value, shape, f"{field}/tuned")
    return (
        line(TITLES[control.name]),
        line(control.unit),
        form.estimate(control.value, shape, f"{field}/value"),
        tuned,
        line("YES" if explaining else ""),
    )
