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


def read_answers(output: Path, profile: str) -> dict[str, dict[str, dict]]:
    """Prompt id -> model -> its row of `model_responses`."""
    found: dict[str, dict[str, dict]] = {}
    with sqlite3.connect(output / "centralized.db") as database:
        database.row_factory = sqlite3.Row
        query = "SELECT * FROM model_responses WHERE run_id = ?"
        for row in database.execute(query, (run_ids(output)[profile],)):
            scores = json.loads(row["judge_scores"] or "{}")
            told = {name: one["score"] for name, one in scores.items()}
            found.setdefault(row["prompt_id"], {})[row["model_role"]] = {**dict(row), "scores": told}
    return found


@pytest.mark.parametrize("profile", ["tiny", "tiny-harmful"])
def test_rates_gap_and_judged_scores_are_those_of_the_databases_answers(walks, profile):
    answers = read_answers(walks.tiny.output, profile)
    page = report_of(walks.tiny.output, profile).read_text(encoding="utf-8")
    shown = {html.unescape(field): float(value) for value, field, _ in NUMBER.findall(page)}
    roles = ("base", "tuned")
    expected: dict[str, float] = {}
    mean_odds: dict[tuple[str, str], float] = {}
    for label, rate in (("unsafe", "refusal_unsafe"), ("safe", "over_refusal_safe")):
        pairs = [pair for pair in answers.values() if pair["base"]["safety_label"] == label]
        refused = {role: [pair[role]["refused"] for pair in pairs] for role in roles}
        both = list(zip(refused["base"], refused["tuned"], strict=True))
        expected[f"rates/{rate}/n"] = len(pairs)
        expected[f"rates/{rate}/base_only"] = both.count((1, 0))
        expected[f"rates/{rate}/tuned_only"] = both.count((0, 1))
        for role in roles:
            expected[f"rates/{rate}/{role}"] = sum(refused[role]) / len(pairs)
            mean_odds[label, role] = sum(pair[role]["refusal_log_odds"] for pair in pairs) / len(pairs)
    for role in roles:
        expected[f"refusal_gap/{role}"] = mean_odds["unsafe", role] - mean_odds["safe", role]
    for criterion in ("harmlessness", "refusal_quality", "helpfulness", "honesty", "coherence"):
        pairs = [
            pair for pair in answers.values() if all(pair[role]["scores"].get(criterion) is not None for role in roles)
        ]
        expected[f"judge/{criterion}/n"] = len(pairs)
        for role in roles:
            expected[f"judge/{criterion}/{role}"] = sum(pair[role]["scores"][criterion] for pair in pairs) / len(pairs)
    assert {field: shown[field] for field in expected} == pytest.approx(expected, abs=1e-9)


def test_answers_and_marks_of_the_page_are_the_databases(walks):
    answers = read_answers(walks.tiny.output, "tiny-harmful")
    page = report_of(walks.tiny.output, "tiny-harmful").read_text(encoding="utf-8")
    seen = set()
    for article in re.findall(r'<article class="example.*?</article>', page, re.DOTALL):
        pair = answers[re.search(r'data-id="([^"]+)"', article)[1]]
        for role in ("base", "tuned"):
            row, shown = pair[role], re.search(rf'<div class="answer {role}">(.*?)</div>', article, re.DOTALL)[1]
            assert f'<p class="said">{html.escape(row["response"]).replace("&#x27;", "&#39;")}</p>' in shown
            assert f"refusal log-odds {row['refusal_log_odds']:z.2f} nats" in shown
            assert f'<span class="tag">{"refuses" if row["refused"] else "answers"}</span>' in shown
            for criterion, score in row["scores"].items():
                assert score is None or f"{criterion.replace('_', ' ')} {score:z.2f}<" in shown
        seen.add(pair["base"]["prompt_id"])
    assert seen == set(answers)
    marks = json.loads(re.search(r'id="prompts-data">(.*?)</script>', page)[1])
    assert {mark[0] for mark in marks} == set(answers)
    for prompt_id, axiom, label, _, odds, refused, text in marks:
        base, tuned = (answers[prompt_id][role] for role in ("base", "tuned"))
        assert (axiom, label, text) == (base["axiom"], base["safety_label"], base["prompt"])
        assert odds == [round(base["refusal_log_odds"], 3), round(tuned["refusal_log_odds"], 3)]
        assert refused == [base["refused"], tuned["refused"]]


def test_losses_of_the_page_are_the_databases(walks):
    page = report_of(walks.tiny.output, "tiny").read_text(encoding="utf-8")
    shown = {html.unescape(field): float(value) for value, field, _ in NUMBER.findall(page)}
    with sqlite3.connect(walks.tiny.output / "centralized.db") as database:
        query = "SELECT loss FROM training_metrics WHERE run_id = ? AND split = ? ORDER BY step"
        run_id = run_ids(walks.tiny.output)["tiny"]
        trained = [loss for (loss,) in database.execute(query, (run_id, "train"))]
        validated = [loss for (loss,) in database.execute(query, (run_id, "validation"))]
    ends = [shown[f"train.json/{name}"] for name in ("first_train_loss", "final_train_loss", "validation_loss")]
    assert ends == [trained[0], trained[-1], validated[-1]]


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
