"""What the pipeline writes into the rows of a stage that ended without its artifact."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from jobs.pipeline.machine import Failure
from jobs.pipeline.results import StoredResults
from pipeline_common.config import load_config
from pipeline_common.stages import plan_run
from pipeline_common.tables import TABLES
from pipeline_common.workplace import open_workplace


@pytest.mark.parametrize(("code", "state"), [(130, "stopped"), (143, "stopped"), (137, "failed")])
def test_the_end_of_a_stage_that_a_signal_ended_is_recorded(code, state, tmp_path, monkeypatch):
    monkeypatch.delenv("ARTIFACTS_URI", raising=False)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    place = open_workplace(load_config("tiny", [f"runtime.output_dir={tmp_path}/out"]))
    place.database.migrate()
    plan = plan_run(place.config)
    planned = plan.stages["train"]
    StoredResults(place, plan).record_failure(planned, Failure("train", "a signal", exit_code=code))
    (row,) = place.database.select(sa.select(TABLES["stage_runs"]))
    assert (row["stage"], row["state"], row["exit_code"], row["message"]) == ("train", state, code, "a signal")


def test_a_stage_that_told_its_own_end_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.delenv("ARTIFACTS_URI", raising=False)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    place = open_workplace(load_config("tiny", [f"runtime.output_dir={tmp_path}/out"]))
    place.database.migrate()
    plan = plan_run(place.config)
    StoredResults(place, plan).record_failure(plan.stages["train"], Failure("train", "its own words", exit_code=3))
    assert place.database.select(sa.select(TABLES["stage_runs"])) == []
