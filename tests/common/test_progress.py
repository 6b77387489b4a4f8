"""Progress: pace and time left, the lines of a log, the live line of a terminal, the file that others read."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys

from pipeline_common import progress
from pipeline_common.clock import PhaseClock
from pipeline_common.json_logs import FIELDS
from pipeline_common.progress import Pace, Progress, read_progress, tell_progress, track
from pipeline_common.stages import REPOSITORY
from tests.common.made_clock import Clock


def test_the_time_left_counts_from_the_first_step_reported():
    """A run that resumed at step 40: what was done before says nothing about this attempt's pace."""
    clock = Clock()
    pace = Pace(60, clock)
    clock.now += 30  # loading
    assert pace.left_s(41) is None
    clock.now += 4
    # Two steps in four seconds, 17 to go.
    assert pace.left_s(43) == 34.0
    assert pace.left_s(60) == 0.0


def test_an_unknown_total_has_no_end():
    pace = Pace(0)
    assert pace.left_s(1) is None
    assert pace.left_s(2) is None


def test_a_line_says_step_loss_speed_and_time_left():
    values = {"loss": 1.2345, "tokens_per_second": 1830.4}
    seen = Progress("train", "training", 30, 60, "", values, 12.2, "2026-01-01T00:00:00.000+00:00")
    assert seen.describe() == "training: 30 of 60 (loss 1.234, 1,830 tokens/s), 12 s left"


def test_elsewhere_than_on_a_terminal_it_is_a_log_line_with_its_numbers(monkeypatch, caplog):
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    with caplog.at_level("INFO"), track("training", 4) as advance:
        advance(1, loss=2.0, tokens_per_second=10.0)
    (record,) = caplog.records
    assert record.getMessage() == "training: 1 of 4 (loss 2.000, 10 tokens/s)"
    told = {"what": "training", "done": 1, "total": 4, "loss": 2.0, "tokens_per_second": 10.0, "eta_s": None}
    assert getattr(record, FIELDS) == {"progress": told}


def test_the_file_is_there_while_the_loop_runs(tmp_path):
    path = tmp_path / "progress.json"
    with tell_progress("train", path):
        assert read_progress(path) is None
        with track("training", 4) as advance:
            advance(3, loss=2.0)
            found = read_progress(path)
            assert (found.stage, found.what, found.done, found.total, found.values) == (
                "train",
                "training",
                3,
                4,
                {"loss": 2.0},
            )
        assert read_progress(path) is None
    with track("elsewhere", 1) as advance:
        advance(1)
    assert list(tmp_path.iterdir()) == []


def test_between_loops_the_file_names_the_phase(tmp_path):
    path = tmp_path / "progress.json"
    path.write_text("left by an attempt that was killed")
    clock = PhaseClock()

    def told():
        return read_progress(path).describe()

    with tell_progress("train", path):
        assert read_progress(path) is None
        with clock.phase("training"):
            assert told() == "training"
            with clock.phase("load"):
                assert told() == "load"
            assert told() == "training"
            with track("steps", 4) as advance:
                advance(1)
                assert told() == "steps: 1 of 4"
            assert told() == "training"
        assert read_progress(path) is None


ON_A_TERMINAL = """
import time
from pathlib import Path
from pipeline_common.logs import get_logger, start_console
from pipeline_common.progress import tell_progress, track

start_console("info", "train")
with tell_progress("train", Path({path!r})), track("training", 4) as advance:
    advance(1, loss=2.0, tokens_per_second=1000.0)
    time.sleep(0.3)
    advance(2, loss=1.5, tokens_per_second=1000.0)
    get_logger("x").info("a line in between")
    time.sleep(0.3)
"""


def test_on_a_terminal_a_live_line_names_stage_step_loss_speed_and_time_left(tmp_path):
    ours, theirs = pty.openpty()
    outside = {**os.environ, "TERM": "xterm", "COLUMNS": "140", "LOG_FORMAT": ""}
    program = ON_A_TERMINAL.format(path=str(tmp_path / "progress.json"))
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=REPOSITORY, env=outside, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    while select.select([ours], [], [], 30)[0]:
        try:
            shown += os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
    os.close(ours)
    assert process.wait() == 0
    text = shown.decode()
    for part in ("train", "training", "2/4", "loss 1.500", "1,000 tokens/s", "s left"):
        assert part in text, json.dumps(text)
    assert any(line.strip().endswith("train        a line in between") for line in text.splitlines()), json.dumps(text)
