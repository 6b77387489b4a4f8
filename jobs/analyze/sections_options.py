"""What the report shows of the measures that are off by default: learned layer weights, other forms of AQI."""

from __future__ import annotations

from typing import Final

from jobs.analyze import formatting as form
from jobs.analyze.blocks import Block, Table, bullets, text
from jobs.analyze.formatting import line
from pipeline_common.diagnostic_measures import ExtraIndex, IndexReference
from pipeline_common.measures import Measures

_TITLES: Final = {"b4": "AQI in the form of the paper's appendix B.4", "legacy100": "legacy100"}
_MEANINGS: Final = {
    "b4": (
        "(CHI / CHI_max)^lambda exp(-XBI)^(1 - lambda), from 0 to 1, higher = better separated. CHI grows with the "
        "number of prompts, so compare base with tuned in one row, never two rows; another run has another CHI_max."
    ),
    "legacy100": (
        "An earlier public script's score from 0 to 100, for comparison only. It is normalised within one model, so it "
        "ranks that model's axioms among each other and cannot see a uniform change: a tuned model that lost nine "
        "tenths of its separation everywhere keeps every score."
    ),
}


def show_learned_weights(measures: Measures) -> tuple[Block, ...]:
    """The layers that got a weight, and on what they were learned; nothing where layers weigh alike."""
    learned = measures.learned_weights
    if learned is None:
        return ()
    used = [one for one in learned.layers if one.weight > 0]
    table = Table(
        "Learned layer weights",
        ("layer", "weight"),
        tuple((line(f"layer {one.layer}"), form.number(one.weight, form.SIGNIFICANT)) for one in used),
        note=f"A sparsemax learned on {learned.n_safe} safe and {learned.n_unsafe} unsafe prompts of the base and then "
        f"frozen; {len(learned.layers) - len(used)} of {len(learned.layers)} layers got exactly 0. Separation is "
        "measured on the other prompts only, so the choice of layers cannot flatter it.",
    )
    return (table,)


def show_extra_indices(measures: Measures) -> tuple[Block, ...]:
    """The other forms of AQI with their references and caveats; nothing where none was asked for."""
    blocks: list[Block] = []
    for index in measures.extra_indices:
        table = Table(
            _TITLES[index.name],
            ("axiom", "base", "tuned"),
            tuple(
                (
                    line("all prompts (pooled)" if score.scope == "overall" else score.name),
                    form.number(score.base, form.SIGNIFICANT),
                    form.number(score.tuned, form.SIGNIFICANT),
                )
                for score in index.scores
            ),
            note=f"{_MEANINGS[index.name]} The verdict does not read it.",
        )
        reasons = [f"{score.name}: {score.reason}." for score in index.scores if score.reason]
        missing = f" Undefined, and in no reference: {len(reasons)} of {len(index.scores)} scores." if reasons else ""
        blocks += [table, text(f"{_tell_reference(index)}{missing}"), *([bullets(reasons)] if reasons else [])]
    return tuple(blocks)


def _tell_reference(index: ExtraIndex) -> str:
    if not index.references:
        return "Reference: none, for no score is defined."
    return f"Reference: {index.source}. {' '.join(map(_tell_values, index.references))}"


def _tell_values(reference: IndexReference) -> str:
    low, high, median, spread = (
        None if value is None else form.SIGNIFICANT.write(value)
        for value in (reference.chi_min, reference.chi_max, reference.xbi_median, reference.xbi_iqr)
    )
    chi = f"CHI up to {high}" if low is None else f"CHI {low} to {high}"
    xbi = "" if median is None else f", XBI with median {median} and interquartile range {spread}"
    return f"{reference.covers.capitalize()}, {reference.n_scores} scores: {chi}{xbi}."
