"""One stage's attempt, with small runs of our own in the place of the heavy ones."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import threading
import time

import pytest
import sqlalchemy as sa

from pipeline_common import execution
from pipeline_common.attempt_folder import LOG_FILE
from pipeline_common.cli import guard
from pipeline_common.config import load_config
from pipeline_common.context import Outputs
from pipeline_common.errors import InputError, TerminatedError
from pipeline_common.stages import plan_run
from pipeline_common.tables import TABLES
from pipeline_common.workplace import open_workplace
from tests.common.made_stage import write_one_file


def stage_rows(place):
    return place.database.select(sa.select(TABLES["stage_runs"]))


def test_a_finished_stage_is_published_recorded_linked_and_cleaned_up(place, plan):
    planned = plan.stages["environment"]
    manifest = execution.run_stage(place, plan, planned, write_one_file, force=False)
    assert place.store.read_manifest(planned.key) == manifest
    assert {entry.path for entry in manifest.files} == {"environment.json", "logs/stage.log", "rows/experiments.jsonl"}
    assert manifest.provenance["argv"]
    assert manifest.provenance["attempt"] == 1
    assert (place.output / "latest" / "environment" / "environment.json").read_text() == '{"a": 1}'
    assert not (place.output / "work" / f"environment-{planned.fingerprint}").exists()
    (row,) = stage_rows(place)
    assert (row["state"], row["exit_code"], row["artifact"]) == ("done", 0, planned.key)
    (run,) = place.database.select(sa.select(TABLES["experiments"]))
    assert (run["run_id"], run["base_commit"]) == (plan.run_id, "abc")
    record = json.loads(place.store.get_bytes(f"runs/{plan.run_id}/run.json"))
    noted = record["stages"]["environment"]
    assert (noted["artifact"], noted["manifest_sha256"]) == (planned.key, manifest.digest())
    assert noted["published_in_s"] >= 0
    kinds = {one["kind"] for one in manifest.provenance["phases"]}
    assert kinds == {"transfer", "rows"}
    assert manifest.provenance["peak_mib"] > 10


def test_a_finished_stage_is_not_run_again_unless_forced(place, plan):
    calls = []

    def run(context):
        calls.append(context.attempt)
        return write_one_file(context)

    for force in (False, False, True):
        execution.run_stage(place, plan, plan.stages["environment"], run, force=force)
    assert len(calls) == 2


def test_a_missing_input_names_the_stage_to_run(place, plan):
    with pytest.raises(InputError, match=r"train needs the artifact environment/.*python -m jobs.environment"):
        execution.run_stage(place, plan, plan.stages["train"], write_one_file, force=False)


def test_a_damaged_input_stops_the_reader(place, plan):
    execution.run_stage(place, plan, plan.stages["environment"], write_one_file, force=False)
    path = place.store.root / plan.stages["environment"].key / "environment.json"
    path.write_text('{"a": 2}')
    with pytest.raises(InputError, match=r"environment\.json differs from its sha256"):
        execution.run_stage(place, plan, plan.stages["prepare"], write_one_file, force=False)


def test_a_failed_attempt_leaves_its_log_its_row_and_no_artifact(place, plan):
    planned = plan.stages["environment"]

    def fail(context):
        (context.files / "half.json").write_text("{")
        raise InputError("the third row is blue")

    for _ in range(2):
        with pytest.raises(InputError):
            execution.run_stage(place, plan, planned, fail, force=False)
    assert place.store.read_manifest(planned.key) is None
    log = place.output / "work" / f"environment-{planned.fingerprint}" / "files" / LOG_FILE
    assert log.read_text().count("the third row is blue") >= 2
    (row,) = stage_rows(place)
    assert (row["state"], row["exit_code"], row["attempt"]) == ("failed", 3, 2)
    assert "blue" in row["message"]
    manifest = execution.run_stage(place, plan, planned, write_one_file, force=False)
    assert "half.json" not in {entry.path for entry in manifest.files}


def test_another_runs_damaged_manifest_does_not_stop_this_one(place, plan):
    planned = plan.stages["environment"]
    execution.run_stage(place, plan, planned, write_one_file, force=False)
    (place.store.root / planned.key / "manifest.json").write_text("{")
    other = plan_run(load_config("tiny", ["environment.min_memory_gib=1"]))
    manifest = execution.run_stage(place, other, other.stages["environment"], write_one_file, force=False)
    assert manifest.fingerprint == other.stages["environment"].fingerprint


def test_sigterm_stops_a_stage_at_once_or_where_it_asks(place, plan):
    def wait(context):
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        time.sleep(120)
        raise AssertionError("the signal did not arrive")

    before = time.monotonic()
    previous = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(TerminatedError):
            execution.run_stage(place, plan, plan.stages["environment"], wait, force=False)

        def finish_step(context):
            with context.stop.deferred():
                os.kill(os.getpid(), signal.SIGTERM)
                assert context.stop.requested
            raise TerminatedError("saved")

        with pytest.raises(TerminatedError, match="saved"):
            execution.run_stage(place, plan, plan.stages["environment"], finish_step, force=False)

        def ask_a_library(context):
            # Libraries catch whatever goes wrong when they look for something that they can do without.
            with contextlib.suppress(Exception):
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(120)
            with context.clock.phase("load"):
                raise AssertionError("the stage went on")

        with pytest.raises(TerminatedError, match="stopped by SIGTERM"):
            execution.run_stage(place, plan, plan.stages["environment"], ask_a_library, force=False)
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert time.monotonic() - before < 60
    (row,) = stage_rows(place)
    assert (row["state"], row["exit_code"]) == ("stopped", 143)


def test_ctrl_c_is_recorded_with_the_code_that_the_process_ends_with(place, plan, capsys):
    def wait(context):
        signal.raise_signal(signal.SIGINT)

    def work():
        execution.run_stage(place, plan, plan.stages["environment"], wait, force=False)

    # Whoever started the tests in the background may have them ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert guard("environment", work) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert "interrupted; the same command goes on" in capsys.readouterr().err
    (row,) = stage_rows(place)
    assert (row["state"], row["exit_code"], row["message"]) == ("stopped", 130, "interrupted")


def test_a_gates_exit_code_is_in_the_rows_of_the_run_that_made_it_and_of_one_that_found_it(place, plan):
    def find_damage(context):
        return Outputs(summary={**write_one_file(context).summary, "exit_code": 4})

    planned = plan.stages["environment"]
    for run in (plan, plan_run(place.config, "another")):
        manifest = execution.run_stage(place, run, planned, find_damage, force=False)
        assert execution.asked_exit_code(manifest) == 4
    assert sorted((row["state"], row["exit_code"]) for row in stage_rows(place)) == [("cached", 4), ("done", 4)]


def _run_slowly(output, counter):
    place = open_workplace(load_config("tiny", [f"runtime.output_dir={output}"]))
    plan = plan_run(place.config)

    def run(context):
        with counter.get_lock():
            counter.value += 1
        time.sleep(0.5)
        return write_one_file(context)

    execution.run_stage(place, plan, plan.stages["environment"], run, force=False)


def test_two_processes_make_an_artifact_once(place):
    spawn = multiprocessing.get_context("fork")
    counter = spawn.Value("i", 0)
    processes = [spawn.Process(target=_run_slowly, args=(place.output, counter)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    assert counter.value == 1
