"""The console of a stage's process: text for people, with LOG_FORMAT=json one object per line, whoever wrote it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime

import pytest

from pipeline_common.json_logs import encode_line
from pipeline_common.logs import LOGGER_NAME
from pipeline_common.stages import REPOSITORY

# The real main of a stage around a stage that does what libraries do.
NOISY = """
import logging
import sys
import warnings

from pipeline_common.cli import stage_main
from pipeline_common.errors import InputError
from pipeline_common.logs import get_logger
from pipeline_common.progress import track


def run(context):
    get_logger("made").info("two\\nlines with hf_0123456789 in them")
    logging.getLogger("library").warning("a library's own warning")
    warnings.warn("an old way of calling", DeprecationWarning, stacklevel=1)
    print("printed past the logging", file=sys.stderr)
    sys.stderr.write("bar 10%\\rbar 20%\\r")
    with track("counting", 3) as advance:
        advance(1, loss=0.5)
    if sys.argv[-1] == "runtime.threads=2":
        raise ZeroDivisionError("with hf_0123456789")
    raise InputError("what came, what was expected, \\u2028 what to do")


sys.exit(stage_main("environment", lambda: run))
"""


def run_noisy(tmp_path, log_format, *overrides):
    clean = {k: v for k, v in os.environ.items() if k not in {"ARTIFACTS_URI", "DATABASE_URL", "RUN_ID"}}
    program = tmp_path / "noisy.py"
    program.write_text(NOISY)
    return subprocess.run(
        [sys.executable, str(program), "--config", "tiny", f"runtime.output_dir={tmp_path}/out", *overrides],
        cwd=REPOSITORY,
        env={**clean, "LOG_FORMAT": log_format, "HF_TOKEN": "hf_0123456789", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )


def entries(done):
    lines = done.stderr.split("\n")
    assert lines.pop() == ""
    return [json.loads(line) for line in lines]


def test_every_line_is_one_object_with_its_time_level_and_writer(tmp_path):
    done = run_noisy(tmp_path, "json")
    assert done.returncode == 3, done.stderr
    found = entries(done)
    for entry in found:
        assert {"time", "level", "stage", "logger", "message"} <= set(entry)
        assert datetime.fromisoformat(entry["time"]).tzinfo is not None
        assert entry["stage"] == "environment"
    by_writer = {entry["logger"]: entry for entry in found}
    assert by_writer[f"{LOGGER_NAME}.made"]["message"] == "two\nlines with *** in them"
    assert by_writer["library"] == {**by_writer["library"], "level": "warning", "message": "a library's own warning"}
    assert "DeprecationWarning: an old way of calling" in by_writer["py.warnings"]["message"]
    written = [entry["message"] for entry in found if entry["logger"] == "stderr"]
    assert written == ["printed past the logging", "bar 10%", "bar 20%"]
    last = found[-1]
    assert (last["level"], last["exit_code"]) == ("error", 3)
    assert last["message"] == "what came, what was expected, \u2028 what to do"
    assert "hf_0123456789" not in done.stderr


def test_an_unexpected_error_is_one_line_with_its_traceback(tmp_path):
    done = run_noisy(tmp_path, "json", "runtime.threads=2")
    assert done.returncode == 1
    last = entries(done)[-1]
    assert last["message"].startswith("unexpected ZeroDivisionError")
    assert last["exception"].startswith("Traceback")
    assert "ZeroDivisionError: with ***" in last["exception"]


@pytest.mark.parametrize("mistake", ["train.learning_rate=-1", "--no-such-option"])
def test_a_mistake_on_the_command_line_is_told_in_objects_too(tmp_path, mistake):
    done = run_noisy(tmp_path, "json", mistake)
    assert done.returncode == 2
    assert any(mistake.partition("=")[0] in entry["message"] for entry in entries(done))


def test_text_is_short_and_keeps_the_libraries_out(tmp_path):
    done = run_noisy(tmp_path, "")
    assert done.returncode == 3
    assert "a library's own warning" not in done.stderr
    assert "an old way of calling" not in done.stderr
    assert "environment  two\nlines with *** in them" in done.stderr
    assert done.stderr.splitlines()[-2:] == ["environment: what came, what was expected, ", " what to do"]
    kept = (tmp_path / "out" / "work").glob("environment-*/files/logs/stage.log")
    (log,) = (path.read_text() for path in kept)
    assert "a library's own warning" in log
    assert "an old way of calling" in log


def test_a_command_without_a_log_keeps_the_libraries_off_its_console():
    program = (
        "import logging, warnings\n"
        "from pipeline_common.logs import quiet_libraries, start_console\n"
        "start_console('info', 'export')\n"
        "quiet_libraries()\n"
        "logging.getLogger('library').warning('no kernel')\n"
        "warnings.warn('an old way of calling', UserWarning, stacklevel=1)\n"
    )
    for log_format, lines in (("", 0), ("json", 2)):
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=REPOSITORY,
            env={**os.environ, "LOG_FORMAT": log_format},
            capture_output=True,
            text=True,
            check=True,
        )
        assert len(done.stderr.splitlines()) == lines, done.stderr


def test_another_format_is_refused(tmp_path):
    done = run_noisy(tmp_path, "yaml")
    assert done.returncode == 2
    assert done.stderr == "environment: LOG_FORMAT='yaml': it is text (the default) or json\n"


def test_a_field_cannot_take_the_place_of_a_name_every_line_has():
    entry = json.loads(encode_line("info", "train", "x", "told", {"stage": "other", "done": 3}, created=0.0))
    assert entry == {
        "time": "1970-01-01T00:00:00.000Z",
        "level": "info",
        "stage": "train",
        "logger": "x",
        "message": "told",
        "done": 3,
    }
