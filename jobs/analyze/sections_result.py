"""The report's sections on the result: first screen, summary, meaning, answers."""

from __future__ import annotations

from collections.abc import Mapping

from jobs.analyze import formatting as form
from jobs.analyze.blocks import Block, FirstScreen, Paragraph, Section, Table, bullets, text
from jobs.analyze.controls import describe_explanation, summarise_controls
from jobs.analyze.evidence import Evidence
from jobs.analyze.examples import ROOMS, Room
from jobs.analyze.figures.style import Picture
from jobs.analyze.formatting import NOT_MEASURED, UNDEFINED, Form, Line, line
from jobs.analyze.narrative import (
    describe_signal,
    explain_aqi,
    list_contradictions,
    list_limits,
    recommend_look,
)
from jobs.analyze.sections_answers import show_answers
from jobs.analyze.sections_controls import show_controls
from jobs.analyze.sections_diagnostics import show_diagnostics
from jobs.analyze.sections_measures import build_measure_sections, score_field
from jobs.analyze.signals import COHERENCE, GAP, GEOMETRY, POWER, Signal, find_overall
from jobs.analyze.wording import describe_clauses, describe_smallest_damage
from pipeline_common.measures import GeometryScore, Measures

STATUS_WORDS = {"ok": "ok", "warn": "WARNS", "fail": "FAILS", "not_measured": NOT_MEASURED}
_LEVELS: dict[str, Form] = {GAP: form.TWO_DIGITS, GEOMETRY: form.SIGNIFICANT, COHERENCE: form.RATE}
_CHANGES: dict[str, Form] = {"points": form.POINTS, "%": form.PERCENT, "share": form.RATE_POINTS}


def build_first_screen(evidence: Evidence) -> FirstScreen:
    """Verdict, headline numbers, what could have been seen, what contradicts it."""
    measures, verdict, config = evidence.measures, evidence.verdict, evidence.config
    facts = line(
        f"{evidence.models.base.title} against its fine-tune on {config.prepare.dataset}; ",
        form.number(measures.n_safe, form.COUNT),
        " safe and ",
        form.number(measures.n_unsafe, form.COUNT),
        f" unsafe prompts of {config.prepare.prompts}; run {evidence.run_id}.",
        _tell_learning(measures),
    )
    degraded = len(evidence.degradations)
    contradictions = list_contradictions(verdict, measures, config.analyze.thresholds)
    if degraded:
        contradictions += (f"Parts of the run that worked in a lesser way than asked: {degraded}; see Degradations.",)
    return FirstScreen(
        label=verdict.label,
        headline=_without_label(verdict.label, verdict.headline),
        facts=facts,
        table=_headline_table(evidence),
        smallest_damage=_without_title(describe_smallest_damage(measures, config.analyze.thresholds)),
        contradictions=contradictions,
        recommendation=verdict.recommendation,
        caution=describe_explanation(measures.controls, config.analyze.thresholds) or "",
        controls=summarise_controls(measures, config.analyze.thresholds),
    )


def _tell_learning(measures: Measures) -> str:
    """Where the rest of the prompts went, if layer weights were learned on them."""
    learned = measures.learned_weights
    if learned is None:
        return ""
    return (
        f" The layers' weights were learned on {learned.n_safe} safe and {learned.n_unsafe} unsafe prompts more, which "
        "are answered but not scored."
    )


def _without_label(label: str, headline: str) -> str:
    """The headline's reasons: the label stands before them already."""
    reasons = headline.removeprefix(f"{label.capitalize()}: ")
    return reasons[:1].upper() + reasons[1:]


def _without_title(sentence: str) -> str:
    """What could have been seen, without the words that stand above it."""
    said = sentence.partition(": ")[2]
    return said[:1].upper() + said[1:]


def build_result_sections(
    evidence: Evidence, pictures: Mapping[str, Picture], room: Room = ROOMS[0]
) -> tuple[Section, ...]:
    """The sections after the first screen, up to the answers and what else the measures hold."""
    return (
        _summarise(evidence),
        _interpret(evidence),
        *build_measure_sections(evidence, pictures),
        show_answers(evidence, room),
        show_controls(evidence),
        show_diagnostics(evidence),
    )


def _headline_table(evidence: Evidence) -> Table:
    overall = find_overall(evidence.measures)
    rows = []
    for signal in evidence.verdict.signals:
        if not signal.decisive or signal.name == POWER:
            continue
        cells = _signal_cells(signal)
        if signal.name == GEOMETRY and overall is not None:
            # The score knows the intervals of both levels, the signal only that of the drop.
            field = score_field(overall)
            levels = (
                form.estimate(overall.base.f2, form.SIGNIFICANT, f"{field}/base_f2"),
                form.estimate(overall.tuned.f2, form.SIGNIFICANT, f"{field}/tuned_f2"),
            )
            cells = (cells[0], *levels, *cells[3:])
        rows.append(cells)
    if overall is not None:
        rows.append(_aqi_cells(overall))
    return Table(
        "Base against tuned, with 95 % intervals",
        ("measure", "base", "tuned", "change", "status"),
        tuple(rows),
        note="Rates: change = tuned - base, in points. Gap and separation: drop in percent of the base's. Coherence: "
        "the tuned model's as a share of the base's. AQI holds the same information as f2.",
    )


def _signal_cells(signal: Signal) -> tuple[Line, ...]:
    """One row of the headline table, and of the judge's."""
    field = f"evaluation_summary/{signal.name}"
    level = _LEVELS.get(signal.name, form.PERCENT if signal.unit == "points" else form.TWO_DIGITS)
    change = form.RATE if signal.name == COHERENCE else _CHANGES[signal.unit]
    low, high = signal.interval or (None, None)
    moved = form.with_interval(signal.value, low, high, change, f"{field}/value", NOT_MEASURED)
    if signal.unit == "%" and signal.value is not None:
        moved = line("drop ", moved, " (a rise)" if signal.value < 0 else "")
    if signal.name == COHERENCE and signal.value is not None:
        moved = line(moved, " of the base's")
    return (
        line(describe_signal(signal)),
        form.number(signal.base, level, f"{field}/base", NOT_MEASURED),
        form.number(signal.tuned, level, f"{field}/tuned", NOT_MEASURED),
        moved,
        line(STATUS_WORDS[signal.status]),
    )


def _aqi_cells(score: GeometryScore) -> tuple[Line, ...]:
    field = score_field(score)
    return (
        line("AQI, all prompts"),
        form.estimate(score.base.aqi, form.SIGNIFICANT, f"{field}/base_aqi"),
        form.estimate(score.tuned.aqi, form.SIGNIFICANT, f"{field}/tuned_aqi"),
        form.estimate(score.delta_aqi, form.SIGNED, f"{field}/delta_aqi"),
        line("see f2" if score.status == "ok" else UNDEFINED),
    )


def _summarise(evidence: Evidence) -> Section:
    verdict = evidence.verdict
    look = recommend_look(evidence.measures, verdict)
    blocks: list[Block] = [
        Paragraph(line(verdict.headline)),
        bullets(verdict.sentences),
        text("What the rule found:", f"{describe_clauses(verdict.path) or 'no clause of the rule applied'}."),
        text("Recommendation:", verdict.recommendation, *([look] if look else [])),
    ]
    rows = tuple(
        (
            line(describe_signal(signal)),
            line(STATUS_WORDS[signal.status]),
            line(signal.threshold),
            line(signal.sentence),
        )
        for signal in evidence.verdict.signals
    )
    table = Table(
        "Every signal against its thresholds",
        ("signal", "status", "thresholds", "finding"),
        rows,
        note="The rule reads the signals; the judge is shown beside them and is not part of it.",
        folded=True,
        numeric=False,
    )
    return Section("summary", "Executive summary", (*blocks, table))


def _interpret(evidence: Evidence) -> Section:
    measures = evidence.measures
    return Section(
        "interpretation",
        "What the numbers mean",
        (
            bullets(explain_aqi(measures, evidence.config.evaluate.aqi_lambda)),
            text("What they do not mean:"),
            bullets(list_limits(measures)),
        ),
    )
