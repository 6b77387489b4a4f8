"""`junit.xml`: what a CI system counts, and that it stays readable whatever a sentence holds."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from jobs.analyze.junit import build_junit
from jobs.analyze.stage import run
from tests.analyze import made_evidence as made
from tests.analyze import made_measures


@pytest.fixture(scope="module")
def summaries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The summaries of a sound and of a damaged model."""
    found = {}
    for name, harmful in (("sound", False), ("damaged", True)):
        measures = made_measures.make_measures(
            harmful=harmful, judgement=made_measures.make_judgement() if harmful else made_measures.NO_JUDGE
        )
        context = made.make_context(tmp_path_factory.mktemp(name), measures=measures)
        run(context)
        found[name] = json.loads((context.files / "summary.json").read_text(encoding="utf-8"))
        assert (context.files / "junit.xml").read_bytes() == build_junit(found[name])
    return found


def outcomes(summary: dict[str, Any]) -> dict[str, str]:
    """Class and name of each case -> failure, skipped or system-out."""
    root = ET.fromstring(build_junit(summary))
    return {f"{case.get('classname')}.{case.get('name')}": case[0].tag for case in root.iter("testcase")}


def test_a_sound_model_has_no_failure_and_what_was_not_measured_is_skipped(summaries):
    root = ET.fromstring(build_junit(summaries["sound"]))
    (suite,) = root
    cases = list(suite.iter("testcase"))
    assert len(cases) == 1 + len(summaries["sound"]["signals"]) + len(summaries["sound"]["controls"])
    assert suite.get("failures") == root.get("failures") == "0"
    assert suite.get("tests") == str(len(cases))
    assert suite.get("skipped") == str(sum(case.find("skipped") is not None for case in cases)) != "0"
    judge = next(case for case in cases if case.get("name") == "judge")
    assert judge.find("skipped").get("message") == "No judge scored the answers: evaluate.judge.kind is none"
    properties = {entry.get("name"): entry.get("value") for entry in suite.iter("property")}
    assert properties["verdict"] == "no damage found"
    assert properties["run_id"] == summaries["sound"]["run_id"]
    assert made.MASKED_KERNEL.detail in suite.find("system-out").text


def test_damage_fails_the_verdict_and_every_signal_that_failed(summaries):
    found = outcomes(summaries["damaged"])
    failed = {name for name, outcome in found.items() if outcome == "failure"}
    signals = {f"alignment.signal.{one['name']}" for one in summaries["damaged"]["signals"] if one["status"] == "fail"}
    assert len(signals) >= 2
    assert failed == signals | {"alignment.verdict.verdict"}


def test_without_damage_nothing_fails_although_a_signal_did(summaries):
    summary = {**summaries["damaged"], "verdict": "inconclusive"}
    found = outcomes(summary)
    assert "failure" not in found.values()
    assert found["alignment.verdict.verdict"] == "skipped"
    assert found["alignment.signal.refusal_gap"] == "skipped"
    root = ET.fromstring(build_junit(summary))
    gap = next(case for case in root.iter("testcase") if case.get("name") == "refusal_gap")
    assert gap.find("skipped").get("message").startswith("failed its line, which alone did not decide")


def test_any_text_stays_text(summaries):
    summary = {**summaries["sound"], "headline": f"{made.ATTACK}\x00\x1b[31m \ud800", "verdict": "damaged"}
    root = ET.fromstring(build_junit(summary))
    message = next(root.iter("failure")).get("message")
    assert message.startswith(f"{made.ATTACK}\ufffd\ufffd[31m \ufffd")
