"""Servers and stages killed, cut off, started twice: the rows are those of an undisturbed run, each once."""

from __future__ import annotations

import os
import random
import signal
import time
from dataclasses import replace

import pytest

from pipeline_common.database import Database
from tests.common.database.made_rows import HARD_TEXT
from tests.common.database.made_stage_run import (
    Setting,
    final_rows,
    finish,
    run,
    stage_row,
    start,
    table_rows,
    wait_for,
    wait_until,
)

# As long as a server may be away without anybody noticing more than a pause.
OUTAGE_S = 30


def expected(metrics):
    """The rows as both databases keep them, in the order of their keys."""
    rows = final_rows(metrics)
    for row in [*rows["model_responses"], *rows["evaluation_summary"]]:
        for name, value in row.items():
            row[name] = value.replace("\x00", "␀") if value == HARD_TEXT else value
    return rows


@pytest.fixture
def setting(database_url, tmp_path):
    return Setting(tmp_path, database_url)


@pytest.fixture
def postgres_setting(empty_postgres, tmp_path):
    return Setting(tmp_path, empty_postgres.url)


def test_an_undisturbed_stage_writes_its_rows_once(setting):
    assert run(setting) == 0, setting.log.read_text()
    assert table_rows(setting.url) == expected(setting.metrics)
    assert run(setting) == 0
    assert table_rows(setting.url) == expected(setting.metrics)
    assert setting.starts == 1


def test_rows_are_in_the_database_while_the_stage_works(postgres_setting):
    held = replace(postgres_setting, metrics=400, held_after=200)
    process = start(held)
    wait_for(held.fed)
    wait_until(lambda: len(table_rows(held.url)["training_metrics"]) == 200, "the rows so far")
    assert not held.finished.exists()
    held.released.touch()
    assert finish(process) == 0
    assert len(table_rows(held.url)["training_metrics"]) == 400


def test_killed_at_seeded_moments_no_row_is_lost_or_doubled(setting):
    calm = replace(setting, metrics=2000, pause_s=0.001)
    setting = replace(calm, force=True)
    moments = random.Random(11)
    killed = written = 0
    # Seconds after the stage began its work, and after it ended it: while the artifact's rows are written, and after.
    spans = {setting.fed: 0.5, setting.finished: 0.25}
    for start_number in range(30):
        mark = (setting.fed, setting.finished)[start_number % 2]
        mark.unlink(missing_ok=True)
        process = start(setting)
        while not mark.exists() and process.is_alive():
            time.sleep(0.002)
        time.sleep(moments.uniform(0.0, spans[mark]))
        process.kill()
        process.join()
        if process.exitcode == -signal.SIGKILL:
            killed += 1
            written += len(table_rows(setting.url)["training_metrics"]) > 0
        else:
            # It was done before: a fast machine, or this process had to wait for its turn.
            spans[mark] /= 2
        if killed == 8:
            break
    assert killed == 8, "the kills came too late to test anything"
    assert written >= 2, "the kills came too early to test anything"
    assert run(calm) == 0, setting.log.read_text()
    assert table_rows(setting.url) == expected(setting.metrics)
    assert setting.published()
    assert stage_row(setting.url)["state"] in {"done", "cached"}


def test_a_server_killed_during_training_metrics_and_refusing_for_30_s(postgres_setting, empty_postgres):
    """The stage's own work goes on at its pace; its end waits for the server."""
    setting = replace(postgres_setting, metrics=2000, pause_s=0.02)
    server = empty_postgres.server
    process = start(setting)
    wait_for(setting.fed)
    wait_until(lambda: len(table_rows(setting.url)["training_metrics"]) > 0, "the first rows")
    assert not setting.finished.exists()
    server.kill()
    away_since = time.monotonic()
    wait_for(setting.finished)
    assert time.monotonic() - away_since < OUTAGE_S, "the outage held up the stage's own work"
    time.sleep(max(0.0, OUTAGE_S - (time.monotonic() - away_since)))
    assert process.is_alive()
    server.start()
    assert finish(process) == 0, setting.log.read_text()
    assert table_rows(setting.url) == expected(setting.metrics)
    assert setting.starts == 1
    told = setting.log.read_text()
    assert told.count("rows wait until the database is back") == 1
    assert "the lock on environment of run faulty was lost; it is regained" in told


@pytest.mark.parametrize("delay_s", [0.0, 0.05, 0.15])
def test_a_server_killed_while_the_artifacts_rows_are_written(postgres_setting, empty_postgres, delay_s):
    setting = replace(postgres_setting, metrics=8000, pause_s=0.0)
    process = start(setting)
    wait_for(setting.finished)
    time.sleep(delay_s)
    empty_postgres.server.kill()
    time.sleep(0.5)
    empty_postgres.server.start()
    assert finish(process) == 0, setting.log.read_text()
    assert table_rows(setting.url) == expected(setting.metrics)
    assert setting.starts == 1


def test_a_server_that_is_not_up_yet_is_waited_for(postgres_setting, empty_postgres):
    empty_postgres.server.kill()
    process = start(postgres_setting)
    postgres_setting.wait_until_told("is away")
    empty_postgres.server.start()
    assert finish(process) == 0, postgres_setting.log.read_text()
    assert table_rows(postgres_setting.url) == expected(postgres_setting.metrics)


def test_a_server_gone_for_good_is_exit_1_in_the_configured_time(postgres_setting, empty_postgres):
    setting = replace(postgres_setting, give_up_after_s=2.0)
    process = start(setting)
    wait_for(setting.fed)
    empty_postgres.server.kill()
    wait_for(setting.finished)
    since = time.monotonic()
    assert finish(process) == 1
    # Not a minute, which is what is waited by default.
    assert time.monotonic() - since < 30
    told = setting.log.read_text()
    assert "cannot be used: connection to server" in told
    assert "Connection refused" in told
    assert "Traceback" not in told
    assert not setting.published()


@pytest.mark.parametrize("same_folder", [True, False], ids=["same output folder", "two machines"])
def test_two_processes_at_once_do_the_work_once(setting, same_folder):
    """On two machines nothing but the database is shared."""
    first = replace(setting, held_after=100)
    second = first if same_folder else replace(first, output="elsewhere")
    processes = [start(first), start(second)]
    setting.wait_until_told("waiting for it")
    setting.released.touch()
    assert [finish(process) for process in processes] == [0, 0], setting.log.read_text()
    assert setting.starts == 1
    assert table_rows(setting.url) == expected(setting.metrics)


def test_two_runs_that_need_one_artifact_make_it_once(setting):
    """Published twice, the second would take it away from under the first run's next stage for a moment."""
    first = replace(setting, held_after=100)
    second = replace(first, output="elsewhere", run_id="the-other-run")
    processes = [start(first), start(second)]
    setting.wait_until_told("waiting for it")
    setting.released.touch()
    assert [finish(process) for process in processes] == [0, 0], setting.log.read_text()
    assert setting.starts == 1
    rows = table_rows(setting.url)["training_metrics"]
    wanted = expected(setting.metrics)["training_metrics"]
    for name in (first.run_id, second.run_id):
        assert [row for row in rows if row["run_id"] == name] == [{**row, "run_id": name} for row in wanted]


def test_the_waiting_process_takes_over_from_a_killed_one(setting):
    process = start(replace(setting, held_after=100))
    wait_for(setting.fed)
    waiting = start(replace(setting, output="elsewhere"))
    setting.wait_until_told("waiting for it")
    assert setting.starts == 1
    os.kill(process.pid, signal.SIGKILL)
    assert finish(waiting) == 0, setting.log.read_text()
    assert setting.starts == 2
    assert table_rows(setting.url) == expected(setting.metrics)


def test_a_lock_that_went_to_another_process_stops_this_one_before_it_writes(postgres_setting, empty_postgres):
    """The connection that holds the lock is cut; the process that waits gets it, and its result stands."""
    first = replace(postgres_setting, held_after=100)
    process = start(first)
    wait_for(first.fed)
    second = start(replace(postgres_setting, output="elsewhere"))
    first.wait_until_told("waiting for it")
    (holder,) = empty_postgres.execute("SELECT DISTINCT pid FROM pg_locks WHERE locktype = 'advisory' AND granted")
    empty_postgres.execute(f"SELECT pg_terminate_backend({holder[0]})")
    wait_until(lambda: first.starts == 2, "the second's start")
    first.released.touch()
    assert (finish(process), finish(second)) == (1, 0), first.log.read_text()
    told = first.log.read_text()
    assert "another process took over" in told
    assert told.count("no more rows are sent: another process works on this stage") == 1
    assert stage_row(first.url)["state"] == "done"
    assert table_rows(first.url) == expected(first.metrics)


def test_a_wrong_password_is_exit_2_without_delay_and_never_shown(postgres_setting, empty_postgres):
    wrong = "wr@ng:p/ss%?#&é"
    setting = replace(postgres_setting, url=empty_postgres.url_of("postgres", wrong))
    since = time.monotonic()
    assert run(setting) == 2
    assert time.monotonic() - since < 30
    told = setting.log.read_text()
    assert "refuses the connection" in told
    assert "password authentication failed" in told
    for part in (wrong, "wr@ng", "wr%40ng", "p%2Fss"):
        assert part not in told


def test_a_database_that_does_not_exist_is_exit_2(postgres_setting, empty_postgres):
    assert run(replace(postgres_setting, url=postgres_setting.url.replace(empty_postgres.name, "nowhere"))) == 2
    assert '"nowhere" does not exist' in postgres_setting.log.read_text()


def test_the_password_is_in_no_file_that_is_left(postgres_setting, empty_postgres):
    """Not in the console, the stage's log, the rows, the manifest; nor in the database itself."""
    setting = replace(postgres_setting, give_up_after_s=0.5)
    assert run(setting) == 0
    finish(start(replace(setting, output="again", metrics=310)))
    empty_postgres.server.kill()
    assert run(replace(setting, output="down")) == 1
    empty_postgres.server.start()
    read = 0
    for path in setting.folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            read += 1
            for part in ("p@ss:w", "p%40ss", "w/rd%", "w%2Frd"):
                assert part.encode() not in content, path
    assert read > 10
    for table in table_rows(setting.url).values():
        assert "p@ss" not in str(table)
    assert Database(setting.url, 5).shown_url.count("***") == 1
