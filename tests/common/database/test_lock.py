from __future__ import annotations

import multiprocessing
import time

import pytest

from pipeline_common.database import Database
from pipeline_common.database.lock import LockLostError, hold_stage, lock_key, try_stage
from pipeline_common.errors import TransientError

_FORK = multiprocessing.get_context("fork")
# Far less than the holder keeps it, and enough for a machine with more to do.
PROMPT_S, HELD_S = 5.0, 60.0


def _hold(url, stage, taken, let_go):
    with hold_stage(Database(url, 5, give_up_after_s=20), "run", stage):
        taken.set()
        let_go.wait(HELD_S)


def hold_elsewhere(url, stage):
    """Another process with the lock, and the event that makes it let go."""
    taken, let_go = _FORK.Event(), _FORK.Event()
    process = _FORK.Process(target=_hold, args=(url, stage, taken, let_go))
    process.start()
    assert taken.wait(HELD_S)
    return process, let_go


def seconds_to_take(url, stage):
    before = time.monotonic()
    with hold_stage(Database(url, 5), "run", stage):
        return time.monotonic() - before


def test_other_stages_are_not_held_up_and_the_end_releases(database_url):
    process, let_go = hold_elsewhere(database_url, "train")
    assert seconds_to_take(database_url, "evaluate") < PROMPT_S
    let_go.set()
    process.join(HELD_S)
    assert seconds_to_take(database_url, "train") < PROMPT_S


def test_a_killed_process_releases_at_once(database_url):
    process, _ = hold_elsewhere(database_url, "train")
    process.kill()
    process.join()
    assert seconds_to_take(database_url, "train") < PROMPT_S


def test_trying_waits_for_nobody_and_also_sees_the_artifacts_lock(database_url):
    """The other process holds the stage `train` of `run`; another run's attempt at the same artifact is as taken."""
    with hold_stage(Database(database_url, 5), "free", "train", "train/f00d"):
        process = _FORK.Process(target=_try_both, args=(database_url, outcome := _FORK.Queue()))
        process.start()
        process.join(20)
    assert outcome.get(timeout=5) == {"same artifact": False, "another": True}


def _try_both(url, outcome):
    found = {}
    for name, artifact in (("same artifact", "train/f00d"), ("another", "train/beef")):
        with try_stage(Database(url, 5), "another run", "train", artifact) as free:
            found[name] = free
    outcome.put(found)


def test_what_was_only_tried_is_free_again_at_once(empty_postgres):
    """A session that merely ends leaves its locks for a moment, in which the next one would find them taken."""
    database = Database(empty_postgres.url, 5)
    held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as onlooker:
        for _ in range(100):
            with try_stage(database, "run", "train", "train/f00d") as free:
                assert free
                assert onlooker.exec_driver_sql(held).scalar() == 2
            assert onlooker.exec_driver_sql(held).scalar() == 0


def test_an_undisturbed_lock_asks_nothing(database_url):
    def never():
        raise AssertionError("nothing was lost")

    with hold_stage(Database(database_url, 5), "run", "train") as lock:
        for _ in range(3):
            lock.require(never)


def test_a_lost_lock_is_regained_where_nobody_took_over(empty_postgres):
    database = Database(empty_postgres.url, 5, give_up_after_s=20)
    with hold_stage(database, "run", "train") as lock:
        empty_postgres.server.kill()
        empty_postgres.server.start()
        lock.require(lambda: True)
        lock.require(lambda: pytest.fail("asked again without a loss"))
        assert empty_postgres.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted") == [(1,)]


def test_a_lost_lock_that_another_process_has_or_had_stops_this_one(empty_postgres):
    database = Database(empty_postgres.url, 5, give_up_after_s=20)
    cut = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
    with hold_stage(database, "run", "train") as lock:
        empty_postgres.execute(cut)
        process, let_go = hold_elsewhere(empty_postgres.url, "train")
        with pytest.raises(LockLostError, match="train of run run was lost, and another process took over"):
            lock.require(lambda: True)
        let_go.set()
        process.join(HELD_S)
    with hold_stage(database, "run", "train") as lock:
        empty_postgres.execute(cut)
        with pytest.raises(LockLostError):
            lock.require(lambda: False)


def test_a_server_that_stays_away_is_told(empty_postgres):
    with hold_stage(Database(empty_postgres.url, 1, give_up_after_s=0.5), "run", "train") as lock:
        empty_postgres.server.kill()
        with pytest.raises(TransientError, match="cannot be used"):
            lock.require(lambda: True)


def test_keys_fit_and_differ():
    keys = {lock_key(run, stage) for run in ("a", "b", "a/train") for stage in ("train", "evaluate", "")}
    assert len(keys) == 9
    assert all(-(2**63) <= key < 2**63 for key in keys)
