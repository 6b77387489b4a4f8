"""The report's section on what stands beside the scores: similarity of the two models, probes, permutation tests."""

from __future__ import annotations

from jobs.analyze import formatting as form
from jobs.analyze.blocks import Block, Section, Table, bullets, text
from jobs.analyze.evidence import Evidence
from jobs.analyze.formatting import Line, line
from pipeline_common.diagnostic_measures import Diagnosis, SeparationTest

_TITLE = "Diagnostics and tests"
_SCOPES = {"overall": "all prompts", "axiom": "axiom", "layer": "layer"}


def show_diagnostics(evidence: Evidence) -> Section:
    """How alike the two models are layer by layer, what a probe reads, and which separations and changes are chance."""
    found = evidence.measures.diagnostics
    if found is None:
        return Section("diagnostics", _TITLE, (text("No diagnostics were measured."),))
    intro = text(
        "None of these decides the verdict. CKA compares the two models' states of the same prompts: 1 = the same up "
        "to rotation, shift and scale, about 0 = unrelated. The direction is the difference of the two label means "
        "(the refusal direction); its cosine says whether it still points the same way, the gap how far apart the "
        "labels lie along the base's. The probe is fitted on the base's states and read on held-out prompts of both "
        "models."
    )
    every = (found.scored, *found.layers)
    models = Table(
        "Base against tuned, by representation",
        ("states", "CKA", "direction cosine", "gap base", "gap tuned", "probe AUC base", "probe AUC tuned"),
        tuple(_model_cells(one) for one in every),
        note="The gap is in units of the base's spread. Point estimates without intervals, corrected for bias.",
    )
    shapes = Table(
        "Further cluster indices, by representation",
        (
            "states",
            "silhouette base",
            "silhouette tuned",
            "Davies-Bouldin base",
            "Davies-Bouldin tuned",
            "Dunn base",
            "Dunn tuned",
            "dimensions base",
            "dimensions tuned",
        ),
        tuple(_shape_cells(one) for one in every),
        note="Silhouette and Dunn: higher = better separated; Davies-Bouldin: lower. Dimensions: participation ratio "
        "of the states' spectrum. Dunn and the participation ratio depend on the number of prompts.",
        folded=True,
    )
    tests = Table(
        "Permutation tests",
        ("scope", "p base", "Holm", "p tuned", "Holm", "p change", "Holm"),
        tuple(_test_cells(test) for test in found.tests),
        note=f"Base and tuned: labels permuted within axioms {found.permutations:,} times, one-sided. Change of f2: "
        "both models swapped prompt by prompt, at least as many times, two-sided. Holm: adjusted over the tests of a "
        "scope. A small p of change says that something moved, not that it matters: another training seed moves it "
        "too.",
        folded=True,
    )
    return Section("diagnostics", _TITLE, (intro, models, *_reasons(every, found.tests), shapes, tests))


def _reasons(diagnoses: tuple[Diagnosis, ...], tests: tuple[SeparationTest, ...]) -> tuple[Block, ...]:
    told = [f"{_states(one)}: {one.reason}." for one in diagnoses if one.reason]
    told += [f"Tests of {_scope(test)}: {test.reason}." for test in tests if test.reason]
    return (text("What could not be computed:"), bullets(told)) if told else ()


def _states(found: Diagnosis) -> str:
    return "scored states" if found.name == "scored" else f"layer {found.name}"


def _scope(test: SeparationTest) -> str:
    return _SCOPES[test.scope] if test.scope == "overall" else f"{_SCOPES[test.scope]} {test.name}"


def _model_cells(found: Diagnosis) -> tuple[Line, ...]:
    numbers = (found.cka, found.direction_cosine, found.projection_gap_base, found.projection_gap_tuned)
    probes = (found.probe_auc_base, found.probe_auc_tuned)
    return (line(_states(found)), *(form.number(value, form.TWO_DIGITS) for value in (*numbers, *probes)))


def _shape_cells(found: Diagnosis) -> tuple[Line, ...]:
    names = ("silhouette", "davies_bouldin", "dunn", "participation_ratio")
    pairs = ((getattr(found.base, name), getattr(found.tuned, name)) for name in names)
    return (line(_states(found)), *(form.number(value, form.SIGNIFICANT) for pair in pairs for value in pair))


def _test_cells(test: SeparationTest) -> tuple[Line, ...]:
    pairs = ((test.p_base, test.holm_base), (test.p_tuned, test.holm_tuned), (test.p_change, test.holm_change))
    cells: list[Line] = []
    for p, adjusted in pairs:
        # A test that is the only one of its scope is not adjusted; that is not undefined.
        alone = p is not None and test.scope == "overall"
        cells.append(form.number(p, form.PROBABILITY))
        cells.append(form.number(adjusted, form.PROBABILITY, absent="one test" if alone else form.UNDEFINED))
    return (line(_scope(test)), *cells)
