from __future__ import annotations

import logging
import re
from urllib.parse import quote, quote_plus

import pytest

from pipeline_common.logs import LOGGER_NAME, get_logger, start_console, start_file, stop_file
from pipeline_common.redaction import environment_secrets, scrub, url_passwords

ODD = "p@ss:w/rd%?#&é + x"


def test_every_way_of_writing_a_secret_is_hidden():
    forms = (ODD, quote(ODD), quote(ODD, safe=""), quote_plus(ODD), repr(ODD), "a\\b'c", repr("a\\b'c"))
    text = scrub(" | ".join(forms), (ODD, "a\\b'c", ""))
    assert re.sub(r"['\"]", "", text) == " | ".join(["***"] * 7)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("postgresql+psycopg2://u:secret@h:5432/d", {"secret"}),
        ("postgresql://u:a%40b%2Fc@h/d", {"a%40b%2Fc", "a@b/c"}),
        ("postgresql://u:a@b/c@h/d", {"a@b/c"}),
        ("postgresql://u@h/d?password=p1&sslpassword=p2&sslmode=require", {"p1", "p2"}),
        ("sqlite:////tmp/results.db", set()),
        ("postgresql://h/d", set()),
        ("", set()),
    ],
)
def test_the_password_in_an_address(url, found):
    assert url_passwords(url) == found


def test_the_environments_secrets_are_in_no_log_not_even_in_a_traceback(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("DATABASE_URL", f"postgresql+psycopg2://u:{quote(ODD, safe='')}@h/d")
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh")
    assert set(environment_secrets()) >= {ODD, "hf_abcdefgh"}
    start_console("debug", "test")
    handler = start_file(tmp_path / "stage.log")
    try:
        try:
            raise ValueError(f"dsn host=h password={ODD}")
        except ValueError:
            get_logger("x").exception("connecting to %s with hf_abcdefgh", ODD)
    finally:
        stop_file(handler)
        for console in list(logging.getLogger(LOGGER_NAME).handlers):
            logging.getLogger(LOGGER_NAME).removeHandler(console)
    written = (tmp_path / "stage.log").read_text() + capsys.readouterr().err
    assert "Traceback" in written
    assert "connecting to *** with ***" in written
    assert ODD not in written
    assert "hf_abcdefgh" not in written


def test_a_short_password_does_not_blot_out_the_logs():
    assert environment_secrets({"DATABASE_URL": "postgresql://u:in@h/d"}) == ()
