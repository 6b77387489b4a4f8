"""Which of a stage's machines this is, and what those that do not lead leave behind."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from pipeline_common import execution
from pipeline_common.config import load_config
from pipeline_common.errors import ConfigError
from pipeline_common.members import Member, find_member
from pipeline_common.stages import find_stage, plan_run
from pipeline_common.tables import TABLES
from pipeline_common.workplace import open_workplace
from tests.common.made_stage import write_one_file

TRAIN = find_stage("train")


def test_one_machine_leads_whatever_the_environment_says():
    member = find_member(load_config("tiny"), TRAIN, {"JOB_COMPLETION_INDEX": "7"})
    assert member == Member(index=0, nodes=1)
    assert member.leads


def test_a_stage_without_a_gpu_has_one_machine():
    assert find_member(load_config("tiny", ["runtime.nodes=2"]), find_stage("prepare"), {}) == Member()


def test_the_environment_says_which_machine_this_is():
    config = load_config("tiny", ["runtime.nodes=3"])
    environment = {"JOB_COMPLETION_INDEX": "2", "LEADER_ADDRESS": "train-1-0.train", "LEADER_PORT": "4000"}
    member = find_member(config, TRAIN, environment)
    assert member == Member(index=2, nodes=3, leader="train-1-0.train", port=4000)
    assert not member.leads
    del environment["LEADER_PORT"]
    assert find_member(config, TRAIN, environment).port == 29500


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "0 to 2, in JOB_COMPLETION_INDEX, which is not set"),
        ({"JOB_COMPLETION_INDEX": "3", "LEADER_ADDRESS": "a"}, "from 0 to 2 in JOB_COMPLETION_INDEX; it is '3'"),
        ({"JOB_COMPLETION_INDEX": "-1", "LEADER_ADDRESS": "a"}, "it is '-1'"),
        ({"JOB_COMPLETION_INDEX": "0"}, "machine 0 in LEADER_ADDRESS, which is not set"),
        ({"JOB_COMPLETION_INDEX": "0", "LEADER_ADDRESS": "a", "LEADER_PORT": "70000"}, "in LEADER_PORT; it is '70000'"),
    ],
)
def test_what_the_environment_does_not_say_is_asked_for(environment, said):
    with pytest.raises(ConfigError) as caught:
        find_member(load_config("tiny", ["runtime.nodes=3"]), TRAIN, environment)
    assert said in str(caught.value)


def test_a_machine_that_does_not_lead_leaves_no_row_and_no_artifact(tmp_path, monkeypatch):
    config = load_config("tiny", [f"runtime.output_dir={tmp_path}", "runtime.nodes=2"])
    place, plan = open_workplace(config), plan_run(config)
    for name in ("environment", "prepare"):
        execution.run_stage(place, plan, plan.stages[name], write_one_file, force=False)
    rows = place.database.select(sa.select(TABLES["stage_runs"]))
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    monkeypatch.setenv("LEADER_ADDRESS", "localhost")
    seen = []

    def run(context):
        seen.append((context.member.index, context.input_json("prepare", "environment.json")))
        return write_one_file(context)

    train = plan.stages["train"]
    execution.work_along(place, plan, train, run)
    assert seen == [(1, {"a": 1})]
    assert place.store.read_manifest(train.key) is None
    assert place.database.select(sa.select(TABLES["stage_runs"])) == rows
    assert not list((place.output / "work").glob("train-*-member-1"))

    monkeypatch.setenv("JOB_COMPLETION_INDEX", "0")
    execution.run_stage(place, plan, train, write_one_file, force=False)
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    execution.work_along(place, plan, train, run)
    assert len(seen) == 1, "the leader had finished"
