"""The results file: what was written is read, a torn line is run again, anything else is an error."""

from __future__ import annotations

import pytest

from jobs.calibrate.cells import Cell, check_kinds, plan_cells
from jobs.calibrate.results import COLUMNS, Result, append_result, pending_cells, read_results
from pipeline_common.errors import ConfigError, InputError

DAMAGED = Result(
    base_seed=1,
    kind="harmful-100",
    seed=4,
    settings="",
    code="0123456789abcdef",
    verdict="damaged",
    conditions="moved",
    path="behaviour fails: refusal_unsafe; geometry fails and refusal_unsafe, refusal_gap warns",
    turned_share=0.8,
    taught_share=0.75,
    coherence="ok",
    refusal_unsafe="fail",
    over_refusal_safe="ok",
    refusal_gap="fail",
    geometry="warn",
    power="ok",
    coherence_base=0.99,
    coherence_tuned=0.98,
    refusal_base=0.96,
    refusal_tuned=0.21,
    over_refusal_base=0.03,
    over_refusal_tuned=0.0,
    gap_drop_pct=71.5,
    f2_drop_pct=15.25,
    f2_drop_low=11.0,
    f2_drop_high=19.5,
    detectable_drop_pct=3.5,
    first_loss=1.5,
    validation_loss=0.25,
    seconds=11.5,
)
HARMLESS = DAMAGED.model_copy(
    update={
        "kind": "harmful-0",
        "verdict": "no damage found",
        "turned_share": None,
        "taught_share": None,
        "gap_drop_pct": None,
        "path": "",
    }
)


def test_what_is_written_is_read_undefined_numbers_too(tmp_path):
    path = tmp_path / "new" / "results.csv"
    assert read_results(path) == []
    for result in (DAMAGED, HARMLESS):
        append_result(path, result)
    assert read_results(path) == [DAMAGED, HARMLESS]
    lines = path.read_text().splitlines()
    assert lines[0] == ",".join(COLUMNS)
    assert lines[2].startswith("1,harmful-0,4,,0123456789abcdef,no damage found,moved,,,,ok,")


@pytest.mark.parametrize("kept", [1, 30, -1])
def test_a_line_cut_off_by_a_kill_is_left_out_and_written_again(tmp_path, kept):
    path = tmp_path / "results.csv"
    append_result(path, DAMAGED)
    whole = path.read_bytes()
    append_result(path, HARMLESS)
    both = path.read_bytes()
    path.write_bytes(whole + both[len(whole) :][:kept])
    found = read_results(path)
    assert found == [DAMAGED]
    cells = [DAMAGED.cell, HARMLESS.cell]
    assert pending_cells(cells, found, "") == [HARMLESS.cell]
    append_result(path, HARMLESS)
    assert path.read_bytes() == both


def test_a_header_cut_off_by_a_kill_is_written_again(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("base_seed,ki")
    assert read_results(path) == []
    append_result(path, DAMAGED)
    assert read_results(path) == [DAMAGED]


def test_a_file_of_another_version_is_refused(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("base_seed,kind\n1,harmful-0\n")
    with pytest.raises(InputError, match="another version; move it away"):
        read_results(path)


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [(",damaged,", ",fine,", "verdict"), (",0.96,", ",,", "refusal_base"), (",71.5,", ",nan,", "gap_drop_pct")],
)
def test_a_line_that_is_no_result_is_named(tmp_path, old, new, where):
    path = tmp_path / "results.csv"
    append_result(path, DAMAGED)
    content = path.read_text()
    assert content.count(old) == 1
    path.write_text(content.replace(old, new))
    with pytest.raises(InputError, match=f"line 2: {where}: .*remove the line"):
        read_results(path)


def test_only_what_ran_under_these_settings_is_finished():
    cells = plan_cells([1], ["harmful-0", "harmful-100"], [4, 5])
    assert pending_cells(cells, [DAMAGED], "") == [cells[0], cells[2], cells[3]]
    assert pending_cells(cells, [DAMAGED], "train.max_steps=5") == cells


def test_all_kinds_of_a_seed_come_before_the_next_seed():
    assert plan_cells([1, 2], ["harmful-0", "own-style"], [0, 1])[:5] == [
        Cell(1, "harmful-0", 0),
        Cell(1, "own-style", 0),
        Cell(2, "harmful-0", 0),
        Cell(2, "own-style", 0),
        Cell(1, "harmful-0", 1),
    ]


def test_kinds_by_name():
    assert check_kinds(["own-style", "harmful-0"]) == ["harmful-0", "own-style"]
    assert len(check_kinds([])) == 11
    with pytest.raises(ConfigError, match="harmful-7: no such kind; the kinds are harmful-0, "):
        check_kinds(["own-style", "harmful-7"])
