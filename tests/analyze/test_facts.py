"""JSON documents as tables."""

from __future__ import annotations

from jobs.analyze.facts import split_grids


def test_what_is_counted_alike_becomes_a_table() -> None:
    card = {"a": 1, "b": {"x": {"train": 1}, "y": {"train": 2}}, "c": {"d": {"e": 1}, "f": 2}, "empty": {}}
    plain, grids = split_grids(card)
    assert grids == {"b": {"x": {"train": 1}, "y": {"train": 2}}}
    assert plain == {"a": 1, "c": {"d": {"e": 1}, "f": 2}, "empty": {}}
