from __future__ import annotations

import logging
import threading
import time

from pipeline_common.database.feed import RowFeed
from pipeline_common.database.lock import LockLostError
from pipeline_common.errors import ConfigError, TransientError


def rows(*numbers):
    return [{"step": number} for number in numbers]


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_rows_arrive_in_batches_in_their_order():
    batches = []
    feed = RowFeed(batches.append, every_s=0.02)
    for number in range(100):
        feed.add(rows(number))
    feed.close(60)
    assert [row["step"] for batch in batches for row in batch] == list(range(100))
    assert len(batches) < 100


def test_a_send_that_hangs_holds_nobody_up():
    release, sent = threading.Event(), []

    def hang(batch):
        release.wait(60)
        sent.extend(batch)

    feed = RowFeed(hang, every_s=0.01)
    before = time.monotonic()
    for number in range(1000):
        feed.add(rows(number))
        time.sleep(0.0001)
    feed.close(0.1)
    assert time.monotonic() - before < 30
    release.set()
    wait_until(lambda: sent)


def test_rows_wait_through_an_outage_and_the_console_hears_of_it_once(caplog):
    away, sent, tries = threading.Event(), [], []
    away.set()

    def send(batch):
        tries.append(len(batch))
        if away.is_set():
            raise TransientError("connection refused")
        sent.extend(batch)

    with caplog.at_level(logging.INFO, logger="alignment_check"):
        feed = RowFeed(send, every_s=0.005)
        feed.add(rows(1, 2))
        wait_until(lambda: len(tries) >= 3)
        feed.add(rows(3))
        away.clear()
        wait_until(lambda: sent)
        feed.close(60)
    assert sent == rows(1, 2, 3)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "3 rows sent" in caplog.text


def test_what_waiting_will_not_mend_ends_the_sending_but_not_the_stage(caplog):
    tries = []

    def refuse(batch):
        tries.append(batch)
        raise ConfigError("permission denied")

    feed = RowFeed(refuse, every_s=0.005)
    feed.add(rows(1))
    wait_until(lambda: tries)
    feed.add(rows(2))
    feed.close(60)
    assert len(tries) == 1
    assert "permission denied" in caplog.text


def test_a_process_that_was_replaced_sends_nothing_more(caplog):
    tries = []

    def refuse(batch):
        tries.append(batch)
        raise LockLostError("another process works on it")

    feed = RowFeed(refuse, every_s=0.005)
    feed.add(rows(1))
    wait_until(lambda: tries)
    feed.add(rows(2))
    feed.close(60)
    assert len(tries) == 1
    assert "no more rows are sent" in caplog.text


def test_nothing_is_sent_after_the_end():
    sent = []
    feed = RowFeed(sent.extend, every_s=0.005)
    feed.close(60)
    feed.add(rows(1))
    time.sleep(0.05)
    assert sent == []
