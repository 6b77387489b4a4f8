"""The report's sections on the run: training, data, degradations; cost and provenance have modules of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from jobs.analyze.blocks import Figure, Section, Table, facts_table, text
from jobs.analyze.evidence import Evidence
from jobs.analyze.facts import folded_facts, grid_table, list_facts, split_grids
from jobs.analyze.figures.style import Picture
from jobs.analyze.formatting import line
from jobs.analyze.sections_cost import show_cost
from jobs.analyze.sections_provenance import show_provenance

_FIRST_FACTS: Final = (
    *("train_rows", "validation_rows", "train_tokens", "steps", "effective_epochs", "first_train_loss"),
    *("final_train_loss", "validation_loss", "tokens_per_second", "training_seconds", "quantization", "compute_dtype"),
    *("device", "gpu", "trainable_parameters", "all_parameters", "lora", "seed"),
)


def build_run_sections(evidence: Evidence, pictures: Mapping[str, Picture]) -> tuple[Section, ...]:
    """The sections after the answers."""
    return (
        _show_training(evidence, pictures),
        _show_data(evidence),
        _show_degradations(evidence),
        show_cost(evidence),
        show_provenance(evidence),
    )


def _show_training(evidence: Evidence, pictures: Mapping[str, Picture]) -> Section:
    told = evidence.train_facts
    first = {name: told[name] for name in _FIRST_FACTS if name in told}
    rest = {name: value for name, value in told.items() if name not in first}
    return Section(
        "training",
        "Training",
        (
            Figure(pictures["training_loss"]),
            facts_table("The training in short", list(list_facts(first, "train.json"))),
            *folded_facts("Everything else about the training", rest, "train.json"),
        ),
    )


def _show_data(evidence: Evidence) -> Section:
    """Plain facts first, then a table for everything that is counted in the same way several times."""
    plain, grids = split_grids(evidence.data_card)
    settings = {"settings": plain.pop("settings")} if "settings" in plain else {}
    facts = facts_table(
        "Data card", list(list_facts(plain, "data_card.json")), note="In full: data_card.md of prepare."
    )
    tables = (grid_table(path, grid, "data_card.json") for path, grid in grids.items())
    return Section(
        "data", "Data", (facts, *tables, *folded_facts("Settings of the preparation", settings, "data_card.json"))
    )


def _show_degradations(evidence: Evidence) -> Section:
    found = evidence.degradations
    title = "Degradations"
    if not found:
        return Section("degradations", title, (text("None: everything ran as asked."),))
    rows = tuple((line(entry.stage), line(entry.name), line(entry.detail)) for entry in found)
    table = Table("What ran in a lesser way than asked", ("stage", "what", "detail"), rows, numeric=False)
    return Section("degradations", title, (table,))
