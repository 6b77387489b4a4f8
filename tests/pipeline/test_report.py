"""The reports of the walks: every number is the database's, and they look right in a browser."""

from __future__ import annotations

import html
import json
import re
import sqlite3
from pathlib import Path

import pytest

from tests.looking import LAPTOP, PHONE, ask, look
from tests.pipeline.walking import artifact_of, run_ids
from tests.servers.browser import Browser

NUMBER = re.compile(r'<data value="([^"]+)" data-field="([^"]+)">([^<]*)</data>')


def report_of(output: Path, profile: str) -> Path:
    return artifact_of(output, run_ids(output)[profile], "analyze") / "report.html"


@pytest.mark.parametrize("profile", ["tiny", "tiny-harmful"])
def test_every_number_is_the_databases_to_the_last_digit(walks, profile):
    output = walks.tiny.output
    report = report_of(output, profile)
    run_id = run_ids(output)[profile]
    plain = re.sub(r"\\(.)", r"\1", report.with_name("report.md").read_text(encoding="utf-8"))
    compared = 0
    with sqlite3.connect(output / "centralized.db") as database:
        database.row_factory = sqlite3.Row
        scores = {
            (row["scope"], row["name"]): row
            for row in database.execute("SELECT * FROM aqi_scores WHERE run_id = ?", (run_id,))
        }
        summary = {
            row["name"]: row for row in database.execute("SELECT * FROM evaluation_summary WHERE run_id = ?", (run_id,))
        }
    for value, field, shown in NUMBER.findall(report.read_text(encoding="utf-8")):
        table, _, rest = html.unescape(field).partition("/")
        if table == "aqi_scores":
            scope, name, column = rest.split("/")
            stored = scores[scope, name][column]
        elif table == "evaluation_summary":
            name, column = rest.rsplit("/", 1)
            stored = summary[name][column]
        else:
            continue
        assert float(value) == stored, field
        assert html.unescape(shown) in plain, field
        compared += 1
    # 9 axiom and overall scores and 5 layers (one of them undefined), each with about 19 numbers, and the signals.
    assert compared > 250


def test_time_and_memory_of_every_stage_are_told(walks):
    page = report_of(walks.tiny.output, "tiny").read_text(encoding="utf-8")
    section = page[page.index('<section id="cost"') : page.index('<section id="provenance"')]
    assert "not recorded" not in section
    for phase in ("train: load", "train: training", "evaluate: activations", "prepare: cleaning and encoding the rows"):
        assert phase in section
    for stage in ("environment", "prepare", "train", "evaluate"):
        manifest = json.loads(
            (artifact_of(walks.tiny.output, run_ids(walks.tiny.output)["tiny"], stage) / "manifest.json").read_text()
        )
        phases = {one["phase"]: one["seconds"] for one in manifest["provenance"]["phases"]}
        assert {"opening the inputs", "rows into the database", "checksums"} <= set(phases)
        assert 50 < manifest["provenance"]["peak_mib"] < 2048
        assert f"{stage}: publishing" in section
    assert re.search(r"Base activations: (measured in this run|cached from base_activations/)", section)


def test_both_reports_look_right(walks, browser: Browser):
    for profile in ("tiny", "tiny-harmful"):
        for size, how in ((PHONE, {"dark": True}), (LAPTOP, {})):
            page = look(browser, report_of(walks.tiny.output, profile), size, **how)
            assert ask(page, "scrollingTables()") == []
            assert len(ask(page, "shownPrompts()")) == 12
            page.close()
