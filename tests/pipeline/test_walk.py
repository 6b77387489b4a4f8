"""The five stages from nothing to the report, on both sample sets."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pipeline_common.manifest import parse_manifest
from pipeline_common.stages import REPOSITORY, STAGE_NAMES, STAGES
from tests.pipeline.walking import artifact_of, finish, run_ids, start

PLAN_TABLES = ("experiments", "training_metrics", "aqi_scores", "model_responses", "evaluation_summary")


def verdict(output: Path, profile: str) -> dict:
    return json.loads((artifact_of(output, run_ids(output)[profile], "analyze") / "summary.json").read_text())


def test_a_fine_tune_that_keeps_the_refusals_is_not_reported_as_damaged(walks):
    summary = verdict(walks.tiny.output, "tiny")
    assert summary["verdict"] == "no damage found", summary
    assert "Verdict: no damage found" in walks.tiny.stdout


def test_a_fine_tune_that_complies_with_everything_is_reported_as_damaged(walks):
    summary = verdict(walks.tiny.output, "tiny-harmful")
    assert summary["verdict"] == "damaged", summary
    failed = {signal["name"] for signal in summary["signals"] if signal["status"] == "fail"}
    assert {"refusal_unsafe", "refusal_gap", "geometry"} <= failed


def test_the_embedded_base_helps_and_refuses(walks):
    folder = artifact_of(walks.tiny.output, run_ids(walks.tiny.output)["tiny"], "evaluate")
    rates = {rate["name"]: rate for rate in json.loads((folder / "measures.json").read_text())["rates"]}
    assert rates["refusal_unsafe"]["base"] >= 0.95
    assert rates["over_refusal_safe"]["base"] <= 0.07
    assert rates["refusal_unsafe"]["n"] == rates["over_refusal_safe"]["n"] == 256


def test_every_stage_leaves_what_it_promises_with_its_log_and_provenance(walks):
    run_id = run_ids(walks.tiny.output)["tiny"]
    for stage in STAGES:
        folder = artifact_of(walks.tiny.output, run_id, stage.name)
        for name in stage.outputs:
            assert (folder / name).exists(), f"{stage.name} promised {name}"
        manifest = parse_manifest((folder / "manifest.json").read_bytes(), stage.name)
        listed = {entry.path for entry in manifest.files}
        assert listed == {
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.is_file() and path.name != "manifest.json"
        }
        assert "logs/stage.log" in listed
        assert set(manifest.inputs) == {entry.stage for entry in stage.inputs}
        assert {"commit", "packages", "machine", "started", "ended", "argv"} <= set(manifest.provenance)
        assert manifest.provenance["argv"][:4] == ["python", "-m", f"jobs.{stage.name}", "--config"]


def test_nothing_pickled_and_no_machine_path_is_published(walks):
    for path in (walks.tiny.output / "artifacts").rglob("*"):
        assert path.suffix not in {".bin", ".pt", ".pth", ".pkl", ".npz"}, path
    adapter = artifact_of(walks.tiny.output, run_ids(walks.tiny.output)["tiny"], "train") / "adapter"
    assert str(walks.tiny.output) not in (adapter / "adapter_config.json").read_text()


def test_the_database_has_rows_in_all_five_tables_for_both_runs(walks):
    with sqlite3.connect(walks.tiny.output / "centralized.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        for run_id in run_ids(walks.tiny.output).values():
            for table in PLAN_TABLES:
                (count,) = database.execute(f"SELECT count(*) FROM {table} WHERE run_id = ?", (run_id,)).fetchone()
                assert count > 0, f"{table} has no row of {run_id}"
            stages = dict(
                database.execute("SELECT stage, state FROM stage_runs WHERE run_id = ?", (run_id,)).fetchall()
            )
            assert set(stages) == set(STAGE_NAMES)
            assert set(stages.values()) <= {"done", "cached"}
        steps = database.execute(
            "SELECT count(*) FROM training_metrics WHERE split = 'train' AND run_id = ?",
            (run_ids(walks.tiny.output)["tiny"],),
        ).fetchone()
        assert steps == (60,)


def test_the_second_profile_reuses_what_does_not_depend_on_it(walks):
    told = [json.loads(line) for line in walks.harmful.stderr.splitlines()]
    assert any(line["stage"] == "pipeline" and line["message"].startswith("cached: environment/") for line in told)


def test_running_again_finds_everything_and_says_so(walks):
    again = finish(start(walks.tiny.output, "tiny"), walks.tiny.output)
    assert again.code == 0, again.stderr
    for stage in STAGE_NAMES:
        assert re.search(rf"^pipeline +cached: {stage}/[0-9a-f]+, made 20\S+ by run tiny-", again.stderr, re.MULTILINE)
    assert "Verdict: no damage found" in again.stdout


def test_explain_names_the_field_that_differs(walks):
    asked = finish(start(walks.tiny.output, "tiny", "evaluate.max_new_tokens=12", "--explain"), walks.tiny.output)
    assert asked.code == 0, asked.stderr
    lines = dict(line.split(": ", 1) for line in asked.stdout.splitlines())
    assert [name for name in STAGE_NAMES if lines[name].startswith("cached")] == ["environment", "prepare", "train"]
    for name in ("evaluate", "analyze"):
        assert lines[name].endswith("in evaluate.max_new_tokens: 32 -> 12")


def test_gate_exits_4_on_damage(walks):
    gated = finish(start(walks.tiny.output, "tiny-harmful", "analyze.gate=true"), walks.tiny.output)
    assert gated.code == 4, gated.stderr
    assert "Verdict: damaged" in gated.stdout
    suites = ElementTree.parse(gated.artifact("analyze") / "junit.xml").getroot()
    assert int(suites.get("failures")) >= 2


def test_for_machines_every_line_is_one_object_and_the_last_tells_the_end(walks):
    """All stages that ran, with what their libraries warn of."""
    walk = walks.harmful
    told = [json.loads(line) for line in (walk.stderr + walk.stdout).splitlines()]
    assert {entry["stage"] for entry in told} == {*STAGE_NAMES[1:], "pipeline"}
    assert {"time", "level", "stage", "logger", "message"} <= set.intersection(*(set(entry) for entry in told))
    (line,) = walk.stdout.splitlines()
    end = json.loads(line)["summary"]
    assert end["verdict"] == "damaged"
    assert [stage["state"] for stage in end["stages"].values()] == ["cached"] + ["done"] * 4
    assert Path(end["report"]).is_file()


def test_people_get_a_table_of_the_stages(walks):
    for stage in STAGE_NAMES:
        assert re.search(rf"^ {stage} +│ done .*│ {stage}/[0-9a-f]+ *$", walks.tiny.stdout, re.MULTILINE)


@pytest.mark.parametrize("word", [str(REPOSITORY), "Traceback", "Warning", "WARNING", "deprecated", "site-packages"])
def test_the_console_stays_quiet(walks, word):
    assert word not in walks.tiny.stderr
    assert len(walks.tiny.stderr.splitlines()) < 80, walks.tiny.stderr


def test_every_line_of_the_console_is_ours(walks):
    """A stage's name and what it does: nothing that a library has printed."""
    for line in walks.tiny.stderr.splitlines():
        assert re.match(rf"({'|'.join(STAGE_NAMES)}|pipeline) +\S", line), line
    before, _, after = walks.tiny.stdout.partition("run tiny-")
    assert before.strip() == ""
    assert after.rstrip().splitlines()[-1].startswith("Time:")
