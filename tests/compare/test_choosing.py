"""Which runs are compared, and which are refused."""

from __future__ import annotations

import json
import sqlite3

import pytest
import sqlalchemy as sa

from jobs.compare.comparison import compare_runs
from jobs.compare.runs import choose_runs, read_runs
from pipeline_common.errors import InputError
from pipeline_common.tables import TABLES
from tests.compare.made_runs import MadeRun, make_runs


@pytest.mark.parametrize(
    ("other", "names", "words"),
    [
        (MadeRun("other", changes={"base_model": "mistral@fff"}), "base model", "mistral@fff, quantization nf4"),
        (MadeRun("other", prompts=66), "prompts", "132 of sample:litmus"),
        (MadeRun("other", changes={"representation": "mean of all tokens"}), "representation", "mean of all tokens"),
        (MadeRun("other", overrides=("prepare.prompt_format=chat_template",)), "prompts", "chat_template"),
    ],
    ids=["base", "prompts", "representation", "format"],
)
def test_runs_that_measured_something_else_are_refused_by_name(tmp_path, other, names, words):
    made = make_runs(tmp_path / "output", [MadeRun("first"), MadeRun("second"), other])
    chosen = read_runs(made, ["first", "second", "other"])
    with pytest.raises(InputError, match=f"they differ in {names}:") as refused:
        compare_runs(chosen.runs)
    line = next(line for line in str(refused.value).splitlines() if line.startswith(f"  - {names}:"))
    assert " in first, second; " in line
    assert words in line
    assert line.endswith(" in other")


def test_one_run_alone_is_not_a_comparison(tmp_path):
    made = make_runs(tmp_path / "output", [MadeRun("first")])
    with pytest.raises(InputError, match="only one finished run can be compared, first"):
        choose_runs(made)
    with pytest.raises(InputError, match="no finished run called absent; finished are first"):
        read_runs(made, ["first", "absent"])
    with pytest.raises(InputError, match="at least two runs, came first"):
        read_runs(made, ["first", "first"])


def test_by_default_all_comparable_runs_of_the_newest_base_are_taken(tmp_path):
    runs = [MadeRun("first"), MadeRun("odd", prompts=66), MadeRun("second"), MadeRun("newest")]
    made = make_runs(tmp_path / "output", runs)
    # Made within a millisecond of each other: let the order be plain.
    table = TABLES["experiments"]
    for day, run in enumerate(runs, start=1):
        moment = f"2026-01-{day:02d}T00:00:00+00:00"
        made.database.transact(
            lambda connection, run=run, moment=moment: connection.execute(
                sa.update(table).where(table.c.run_id == run.run_id).values(created_at=moment)
            )
        )
    chosen = choose_runs(made)
    assert [run.run_id for run in chosen.runs] == ["newest", "second", "first"]
    assert chosen.left_out == ("odd: differs from newest in prompts",)
    assert compare_runs(chosen.runs, chosen.left_out).left_out == chosen.left_out


def test_an_unfinished_run_is_not_compared(tmp_path):
    made = make_runs(tmp_path / "output", [MadeRun("first"), MadeRun("second"), MadeRun("failed")])
    table = TABLES["stage_runs"]
    made.database.transact(
        lambda connection: connection.execute(
            sa.update(table).where(table.c.run_id == "failed", table.c.stage == "analyze").values(state="failed")
        )
    )
    assert {run.run_id for run in choose_runs(made).runs} == {"first", "second"}
    with pytest.raises(InputError, match="no finished run called failed"):
        read_runs(made, ["first", "failed"])


def test_runs_of_another_base_are_passed_over(tmp_path):
    runs = [MadeRun("first"), MadeRun("other", changes={"base_model": "mistral@fff"}), MadeRun("newest")]
    made = make_runs(tmp_path / "output", runs)
    for day, run in enumerate(runs, start=1):
        values = {"created_at": f"2026-01-{day:02d}T00:00:00+00:00"}
        if run.run_id == "other":
            values["base_model"] = "mistral"
        _update(made, "experiments", run.run_id, values)
    chosen = choose_runs(made)
    assert ([run.run_id for run in chosen.runs], chosen.left_out) == (["newest", "first"], ())


def test_without_a_finished_run_or_its_record_it_says_so(tmp_path):
    made = make_runs(tmp_path / "output", [MadeRun("first"), MadeRun("second")])
    record = json.loads(made.store.get_bytes("runs/first/run.json"))
    del record["stages"]["train"]
    made.store.put_bytes("runs/first/run.json", json.dumps(record).encode())
    with pytest.raises(InputError, match=r"the record of run first in .* names no train; run it again"):
        read_runs(made, ["first", "second"])
    made.store.delete("runs/first/run.json")
    with pytest.raises(InputError, match=r"has no record of run first, though the database has"):
        read_runs(made, ["first", "second"])
    for run_id in ("first", "second"):
        _update(made, "stage_runs", run_id, {"state": "failed"})
    with pytest.raises(InputError, match="holds no finished run yet"):
        choose_runs(made)


def _update(made, table: str, run_id: str, values: dict[str, str]) -> None:
    of_run = sa.update(TABLES[table]).where(TABLES[table].c.run_id == run_id)
    made.database.transact(lambda connection: connection.execute(of_run.values(values)))


def test_a_database_that_tells_another_story_is_an_error(tmp_path):
    made = make_runs(tmp_path / "output", [MadeRun("a"), MadeRun("b")])
    with sqlite3.connect(tmp_path / "output" / "results.db") as database:
        database.execute("UPDATE evaluation_summary SET status = 'damaged' WHERE run_id = 'a' AND name = 'verdict'")
    with pytest.raises(InputError, match=r"run a: the verdict is 'no damage found' in analyze/.* and 'damaged' in"):
        read_runs(made, ["a", "b"])
