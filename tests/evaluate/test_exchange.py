"""What processes hand each other: found again after a kill, never mistaken for older, waited for with a limit."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import numpy as np
import pytest

from jobs.evaluate.exchange import Exchange, LeaderFinishedError
from jobs.evaluate.parts import AREA, Part
from jobs.evaluate.sharing import Shard
from pipeline_common.config import load_config
from pipeline_common.errors import InputError, TerminatedError, TransientError
from pipeline_common.logs import LOGGER_NAME
from pipeline_common.manifest import Manifest
from pipeline_common.members import Member
from pipeline_common.stages import plan_run
from pipeline_common.workplace import open_workplace
from tests.made_stages import make_context


@pytest.fixture
def told(caplog, monkeypatch):
    # Another test may have stopped the project's records from reaching the root.
    monkeypatch.setattr(logging.getLogger(LOGGER_NAME), "propagate", True)
    caplog.set_level(logging.DEBUG, logger=LOGGER_NAME)
    return caplog


def open_exchange(
    folder: Path, index: int, count: int = 2, *settings: str, machine: int = 0, machines: int = 1, attempt: int = 1
) -> Exchange:
    config = load_config("tiny", [f"runtime.output_dir={folder / 'out'}", "runtime.peers_timeout_s=20", *settings])
    place, plan = open_workplace(config), plan_run(config)
    member = Member(index=machine, nodes=machines)
    context = make_context(place, plan, "evaluate", folder / f"work-{index}", attempt=attempt, member=member)
    return Exchange(context, Shard(index, count), folder / "parts")


def refuse() -> Part:
    raise AssertionError("made again")


def test_parts_come_back_in_the_order_of_the_shards(tmp_path):
    leader, *others = (open_exchange(tmp_path, index, 3) for index in range(3))
    tensor = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    for other in reversed(others):
        index = other.shard.index
        other.contribute("states", lambda index=index: Part([index, 0.1], {"base": tensor * index}), tensors=True)
    parts = leader.gather("states", Part([0]), tensors=True)
    assert [part.records[0] for part in parts] == [0, 1, 2]
    assert parts[1].records[1] == 0.1
    assert np.array_equal(parts[2].tensors["base"], tensor * 2)


def test_a_finished_part_is_taken_up_and_a_damaged_one_is_made_again(tmp_path):
    open_exchange(tmp_path, 1).contribute("answers", lambda: Part(["made"]))
    assert open_exchange(tmp_path, 1).contribute("answers", refuse).records == ["made"]
    (records,) = (tmp_path / "parts").rglob("records.json")
    records.write_text('["tampered"]')
    assert open_exchange(tmp_path, 1).contribute("answers", lambda: Part(["again"])).records == ["again"]


@pytest.mark.parametrize(
    ("count", "settings", "agreed"),
    [(3, (), "a"), (2, ("evaluate.max_new_tokens=9",), "a"), (2, (), "b")],
    ids=["number of shards", "configuration", "what was agreed"],
)
def test_a_part_of_something_else_is_never_taken(tmp_path, count, settings, agreed):
    first = open_exchange(tmp_path, 0)
    first.settle("plan", lambda: "a")
    first.contribute("answers", lambda: Part(["old"]))
    second = open_exchange(tmp_path, 0, count, *settings)
    second.settle("plan", lambda: agreed, accept=lambda said: said == agreed)
    assert second.contribute("answers", lambda: Part(["new"])).records == ["new"]


def test_what_was_settled_holds_for_the_next_attempt(tmp_path):
    assert open_exchange(tmp_path, 0).settle("plan", lambda: {"base": [1, 0.1]}) == {"base": [1, 0.1]}
    assert open_exchange(tmp_path, 0).settle("plan", lambda: "other") == {"base": [1, 0.1]}
    assert open_exchange(tmp_path, 0).settle("plan", lambda: "other", accept=lambda _: False) == "other"
    assert open_exchange(tmp_path, 1).hear("plan") == "other"


def test_the_leaders_rows_are_not_kept(tmp_path):
    open_exchange(tmp_path, 0).contribute("states", lambda: Part([0]), tensors=True)
    assert not list(tmp_path.rglob("records.json"))


def test_a_machine_that_does_not_lead_has_no_table(tmp_path):
    assert open_exchange(tmp_path, 1, machine=1, machines=2).open_table("base", (1, 1, 1)) is None


def test_one_process_has_tables_of_its_own_and_several_only_shared_ones(tmp_path):
    shape = (3, 2, 2)
    assert open_exchange(tmp_path, 0, 1).open_table("base", shape).shape == shape
    assert open_exchange(tmp_path, 0, 2, machines=2).open_table("base", shape).shape == shape
    with pytest.raises(KeyError):
        open_exchange(tmp_path, 0, 2).open_table("base", shape)


def test_tensors_of_another_machine_are_kept_and_those_of_the_leaders_are_of_one_attempt(tmp_path):
    tensor = np.ones((1, 1), np.float32)
    for machines in (1, 2):
        place = {"machine": machines - 1, "machines": machines}
        first = open_exchange(tmp_path / str(machines), 1, **place)
        first.contribute("states", lambda: Part([0], {"base": tensor}), tensors=True)
    with pytest.raises(AssertionError, match="made again"):
        open_exchange(tmp_path / "1", 1, attempt=2).contribute("states", refuse, tensors=True)
    again = open_exchange(tmp_path / "2", 1, machine=1, machines=2, attempt=2)
    assert np.array_equal(again.contribute("states", refuse, tensors=True).tensors["base"], tensor)


def test_a_follower_waits_until_it_can_follow(tmp_path):
    leader, follower = open_exchange(tmp_path, 0), open_exchange(tmp_path, 1)
    heard: list[str] = []
    thread = threading.Thread(target=lambda: heard.append(follower.hear("plan", lambda said: said == "cpu")))
    thread.start()
    leader.settle("plan", lambda: "cuda")
    thread.join(0.5)
    assert thread.is_alive()
    open_exchange(tmp_path, 0).settle("plan", lambda: "cpu", accept=lambda said: said == "cpu")
    thread.join(20)
    assert heard == ["cpu"]
    assert follower.waited_s > 0


def test_silence_ends_with_who_was_silent_and_the_setting(tmp_path):
    short = "runtime.peers_timeout_s=0.3"
    leader = open_exchange(tmp_path, 0, 4, short, machines=2)
    with pytest.raises(TransientError) as caught:
        leader.gather("answers", Part())
    assert "(runtime.peers_timeout_s=0.3) for answers of shard 1 (machine 0), " in str(caught.value)
    assert "shard 2 (machine 1), shard 3 (machine 1)" in str(caught.value)
    with pytest.raises(TransientError, match=r"for the leader's plan, of cpu; is that process still running"):
        open_exchange(tmp_path, 1, 2, short).hear("plan", otherwise=", of cpu")


def test_waiting_is_told(tmp_path, told, monkeypatch):
    monkeypatch.setattr("jobs.evaluate.exchange._TOLD_AFTER_S", 0.0)
    with pytest.raises(TransientError):
        open_exchange(tmp_path, 0, 2, "runtime.peers_timeout_s=0.3").gather("answers", Part())
    assert "waiting for answers of shard 1 since 0 s" in told.text


def test_another_machines_failure_for_good_is_the_leaders(tmp_path):
    leader = open_exchange(tmp_path, 0, machines=2)
    open_exchange(tmp_path, 1, machine=1, machines=2).failures.tell(InputError("the adapter is damaged"))
    with pytest.raises(InputError, match=r"^machine 1: the adapter is damaged$"):
        leader.gather("answers", Part())
    open_exchange(tmp_path, 0, machines=2).failures.forget()
    assert not list(tmp_path.rglob("*-failed-*"))


def test_another_machines_passing_failure_is_waited_out(tmp_path, told):
    leader = open_exchange(tmp_path, 0, machines=2)
    open_exchange(tmp_path, 1, machine=1, machines=2).failures.tell(TerminatedError("stopped by SIGTERM"))
    again = open_exchange(tmp_path, 1, machine=1, machines=2)
    thread = threading.Timer(0.5, lambda: again.contribute("answers", lambda: Part(["second attempt"])))
    thread.start()
    assert leader.gather("answers", Part())[1].records == ["second attempt"]
    thread.join()
    assert "machine 1: stopped by SIGTERM; waiting for another attempt of it" in told.text


def test_another_machine_ends_when_the_stage_is_done(tmp_path):
    follower = open_exchange(tmp_path, 1, machine=1, machines=2)
    leader = open_exchange(tmp_path, 0, machines=2)
    planned = leader._context.planned
    made = Manifest(stage="evaluate", fingerprint=planned.fingerprint, payload={}, run_id="r", files=())
    leader._context.store.publish(tmp_path, made)
    with pytest.raises(LeaderFinishedError):
        follower.hear("plan")


def test_the_store_is_left_clean(tmp_path):
    leader = open_exchange(tmp_path, 0, machines=2)
    leader.settle("plan", lambda: 1)
    other = open_exchange(tmp_path, 1, machine=1, machines=2)
    other.hear("plan")
    other.contribute("answers", lambda: Part([1]))
    foreign = open_exchange(tmp_path, 0, 2, "evaluate.seed=7", machines=2)
    foreign.settle("plan", lambda: 2)
    store = tmp_path / "out" / "artifacts" / AREA
    assert len(list(store.iterdir())) == 3
    leader.clean()
    assert [path.name.split("-")[0] for path in store.iterdir()] == [foreign._context.planned.fingerprint]


def test_who_waits_looks_after_its_own_processes(tmp_path):
    leader = open_exchange(tmp_path, 0)

    def find_one_dead() -> None:
        raise TransientError("shard 1 of 2 was ended by SIGKILL")

    leader.look_after = find_one_dead
    with pytest.raises(TransientError, match="ended by SIGKILL"):
        leader.gather("answers", Part())
