"""Where the seconds went: what the report tells of manifests with, without and with more than they can know."""

from __future__ import annotations

import json

import pytest

from jobs.analyze.blocks import Paragraph, Table
from jobs.analyze.evidence import read_evidence
from jobs.analyze.formatting import plain
from jobs.analyze.sections_cost import show_cost
from pipeline_common.context import Context
from tests.analyze import made_evidence as made


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    made_context = made.make_context(tmp_path_factory.mktemp("cost"))
    noted = {"artifact": "train/f00d", "manifest_sha256": made_context.inputs["train"].digest(), "published_in_s": 1.5}
    other = {"artifact": "evaluate/f00d", "manifest_sha256": "of an artifact made again since", "published_in_s": 99.0}
    record = {"run_id": "made-by-hand", "stages": {"train": noted, "evaluate": other}}
    made_context.store.put_bytes("runs/made-by-hand/run.json", json.dumps(record).encode())
    return made_context


def rows_of(context: Context, title: str) -> dict[str, list[str]]:
    (table,) = [
        block for block in show_cost(read_evidence(context)).blocks if isinstance(block, Table) and block.title == title
    ]
    return {plain(row[0]): [plain(cell) for cell in row[1:]] for row in table.rows}


def test_kinds_add_up_to_all_seconds_and_the_rest_is_other(context: Context) -> None:
    rows = rows_of(context, "Seconds and peak memory by stage")
    # 72.5 s from the attempt's start to its manifest; of it 60.75 s in phases.
    # all, imports, load, compile, compute, transfer, rows, other, MiB, GPU
    assert rows["prepare"] == ["72.5", "0.0", "10.2", "0.0", "50.0", "0.0", "0.5", "11.8", "1,700", "no GPU"]
    # And 1.5 s of publishing after it.
    assert rows["train"] == ["74.0", "0.0", "10.2", "0.0", "50.0", "1.5", "0.5", "11.8", "1,700", "no GPU"]
    # What was noted of another artifact is not this one's.
    assert rows["evaluate"] == rows["prepare"]


def test_what_was_never_recorded_is_said_and_is_no_zero(context: Context) -> None:
    rows = rows_of(context, "Seconds and peak memory by stage")
    assert rows["environment"] == ["72.5", *["not recorded"] * 9]


def test_every_phase_is_listed(context: Context) -> None:
    rows = rows_of(context, "Seconds by phase")
    assert rows["train: publishing"] == ["transfer", "1.5"]
    assert rows["evaluate: the work"] == ["compute", "50.0"]
    assert not any(name.startswith("environment") for name in rows)


def test_it_says_where_the_base_activations_came_from(context: Context) -> None:
    (block, *_) = show_cost(read_evidence(context)).blocks
    assert isinstance(block, Paragraph)
    assert f"Base activations: {made.BASE_ACTIVATIONS}." in plain(block.text)
