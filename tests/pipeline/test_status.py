"""`make status` of results: before, during and after a run, and after one that was killed."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import asdict

import pytest
import sqlalchemy as sa

from jobs.pipeline.cluster.overview import find_progress
from jobs.pipeline.status import print_status, read_status
from pipeline_common import provenance
from pipeline_common.config import load_config
from pipeline_common.progress import PROGRESS_FILE, Progress
from pipeline_common.recording import prepare_database, record_state
from pipeline_common.stages import REPOSITORY, STAGE_NAMES, plan_run
from pipeline_common.tables import TABLES
from pipeline_common.workplace import open_workplace
from tests.pipeline.walking import clean_environment


@pytest.fixture
def place(tmp_path, monkeypatch):
    for name in ("ARTIFACTS_URI", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    return open_workplace(load_config("tiny", [f"runtime.output_dir={tmp_path}/out", "train.max_steps=40"]))


@pytest.fixture
def plan(place):
    return plan_run(place.config)


def begin(place, plan, stage, started="2026-01-01T00:00:00.000+00:00"):
    if stage == "environment":
        prepare_database(place, plan, plan.stages["environment"])
    record_state(place, plan, plan.stages[stage], "running", 1, started=started)
    folder = place.output / "work" / f"{stage}-{plan.stages[stage].fingerprint}"
    folder.mkdir()
    return folder


@contextmanager
def alive(place, plan, stage):
    """What a stage's process holds."""
    lock = place.output / "work" / f"{stage}-{plan.stages[stage].fingerprint}.lock"
    with lock.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def states(place, plan):
    (run,) = read_status(place, plan)["runs"]
    return {stage["stage"]: stage for stage in run["stages"]}


def test_before_a_run_every_stage_says_that_it_would_run(place, plan, capsys):
    status = read_status(place, plan)
    assert status["runs"] == []
    assert [stage["cached"] for stage in status["settings"]["stages"]] == [False] * 5
    print_status(status)
    assert "  no run yet\n" in capsys.readouterr().out


def test_a_running_stage_tells_its_step_and_the_time_left_and_the_others_wait_for_it(place, plan, capsys):
    folder = begin(place, plan, "environment")
    seen = Progress("environment", "building the base model", 30, 60, "", {"loss": 2.5}, 90.0, provenance.now())
    (folder / PROGRESS_FILE).write_text(json.dumps(asdict(seen)))
    with alive(place, plan, "environment"):
        found = states(place, plan)
        print_status(read_status(place, plan))
    assert found["environment"]["state"] == "running"
    assert found["environment"]["eta_s"] == 90.0
    assert found["environment"]["told"].endswith("): building the base model: 30 of 60 (loss 2.500), 1 min 30 s left")
    assert [found[name]["told"] for name in STAGE_NAMES[1:]] == ["waits for environment"] * 4
    assert "    train        waits for environment\n" in capsys.readouterr().out


def test_a_stage_whose_process_is_gone_was_killed(place, plan):
    begin(place, plan, "environment")
    with alive(place, plan, "environment"):
        assert states(place, plan)["environment"]["state"] == "running"
    found = states(place, plan)
    assert found["environment"]["state"] == "killed"
    assert "the same command goes on" in found["environment"]["told"]
    assert found["prepare"]["told"] == "not reached: environment was killed"


def test_a_stale_file_is_not_progress(place, plan):
    folder = begin(place, plan, "environment")
    seen = Progress("environment", "building", 30, 60, "", {}, 90.0, "2026-01-01T00:00:00.000+00:00")
    (folder / PROGRESS_FILE).write_text(json.dumps(asdict(seen)))
    with alive(place, plan, "environment"):
        assert states(place, plan)["environment"]["progress"] is None


def test_a_training_elsewhere_is_followed_by_its_rows(place, plan):
    """Ten of forty steps since the start: three times as long again."""
    begin(place, plan, "environment")
    begin(place, plan, "train", started=provenance.now())
    rows = [
        {"run_id": plan.run_id, "split": "train", "step": step, "epoch": 1.0, "loss": 3.0 - step / 10}
        for step in range(1, 11)
    ]
    place.database.upsert("training_metrics", rows)
    train = states(place, plan)["train"]
    assert train["progress"] == {**train["progress"], "done": 10, "total": 40, "values": {"loss": 2.0}}
    assert train["eta_s"] > 0


def test_no_question_reads_a_table_from_end_to_end(place, plan):
    """As the database itself explains its plans; which runs are the newest it reads off an index of the stages."""
    begin(place, plan, "environment")
    begin(place, plan, "train", started=provenance.now())
    row = {"run_id": plan.run_id, "split": "train", "step": 1, "epoch": 1.0, "loss": 3.0}
    place.database.upsert("training_metrics", [row])
    asked = []

    @sa.event.listens_for(place.database.engine, "before_cursor_execute")
    def listen(_connection, _cursor, statement, parameters, _context, _many):
        asked.append((statement, parameters))

    read_status(place, plan)
    sa.event.remove(place.database.engine, "before_cursor_execute", listen)
    with place.database.engine.connect() as connection:
        steps = [
            (table, step.detail)
            for statement, parameters in asked
            if statement.startswith("SELECT")
            for step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            for table in TABLES
            if step.detail.split()[:2][-1] == table
        ]
    assert {table for table, _ in steps} >= {"stage_runs", "training_metrics"}
    assert [detail for table, detail in steps if "INDEX" not in detail] == []
    assert {table for table, detail in steps if detail.startswith("SCAN")} <= {"stage_runs"}


def test_between_two_stages_the_next_has_not_begun_and_the_rest_wait_for_it(place, plan):
    begin(place, plan, "environment")
    record_state(
        place, plan, plan.stages["environment"], "done", 1, started="2026-01-01T00:00:00.000+00:00", ended=True
    )
    found = states(place, plan)
    assert [found[name]["told"] for name in STAGE_NAMES[1:]] == [
        "not begun",
        "waits for prepare",
        "waits for train",
        "waits for evaluate",
    ]


def test_a_stage_that_is_in_no_loop_says_in_which_phase_it_is(place, plan):
    """However long ago it began: loading a large model says nothing in between."""
    folder = begin(place, plan, "environment")
    phase = Progress("environment", "load", 0, 0, "", {}, None, "2026-01-01T00:00:00.000+00:00")
    (folder / PROGRESS_FILE).write_text(json.dumps(asdict(phase)))
    with alive(place, plan, "environment"):
        found = states(place, plan)["environment"]
    assert found["told"].endswith(" UTC): load")
    assert found["eta_s"] is None


def test_after_a_failure_the_rest_says_why_it_was_not_reached(place, plan):
    begin(place, plan, "environment")
    started, stage = "2026-01-01T00:00:00.000+00:00", plan.stages["environment"]
    told = {"started": started, "ended": True, "exit_code": 3, "message": "no disk\nmore"}
    record_state(place, plan, stage, "failed", 1, **told)
    found = states(place, plan)
    assert found["environment"]["told"].endswith(", exit code 3): no disk")
    assert found["train"]["told"] == "not reached: environment failed"


def test_programs_get_one_object(place, plan, tmp_path):
    begin(place, plan, "environment")
    command = [sys.executable, "-m", "jobs.pipeline.cluster", "status", "--json", f"runtime.output_dir={place.output}"]
    done = subprocess.run(
        [*command, "train.max_steps=40"],
        cwd=REPOSITORY,
        env={**clean_environment(), "KUBECONFIG": str(tmp_path / "none")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert "no Kubernetes cluster" in told["cluster"]["none"]
    assert told["results"]["runs"][0]["run_id"] == plan.run_id
    assert told["results"]["settings"]["stages"][2]["artifact"] == plan.stages["train"].key


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (
            ["train        engine plain", "train        training: 3 of 60 (loss 2.0), 9 s left"],
            "training: 3 of 60 (loss 2.0), 9 s left",
        ),
        (['{"message": "training: 3 of 60", "progress": {"done": 3}}', '{"message": "other"}'], "training: 3 of 60"),
        (["train        model: 2 parts", '{"half', "elsewhere: 3 of 4"], None),
        ([], None),
    ],
)
def test_the_progress_in_the_log_of_a_pod(lines, found):
    assert find_progress(lines) == found
