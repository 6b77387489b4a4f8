"""The stage with judges at an endpoint: away, without token probabilities, with fixed steps."""

from __future__ import annotations

import json

import pytest

from tests.evaluate.judge.made_server import GOOD, Server, completion
from tests.evaluate.workshop import read_measures


def test_an_endpoint_that_is_away_costs_the_judgement_only(workshop):
    folder = workshop.evaluate(
        "away",
        "evaluate.judge.kind=endpoint",
        "evaluate.judge.base_url=http://127.0.0.1:9/v1",
        "evaluate.judge.model=some-judge",
        "evaluate.judge.max_attempts=1",
    )
    measures = read_measures(folder)
    assert measures.judgement.status == "not_measured"
    assert "http://127.0.0.1:9/v1/chat/completions is unreachable" in measures.judgement.note
    assert [found.name for found in measures.degradations] == ["judge unreachable"]
    assert measures.rates[0].n == 64


def test_an_endpoint_without_logprobs_and_with_a_small_budget(workshop):
    """Five lists of steps, one reply that shows the lack of logprobs, then pairs of samples until the budget ends."""
    steps = completion("1. Read the answer.\n2. Give 5 or 1.")
    script = [(200, steps, {}, 0.0)] * 5 + [(200, completion("4"), {}, 0.0)]
    server = Server(script)
    try:
        folder = workshop.evaluate(
            "sampled",
            "evaluate.judge.kind=endpoint",
            f"evaluate.judge.base_url={server.url}",
            "evaluate.judge.model=some-judge",
            "evaluate.judge.samples=2",
            "evaluate.judge.max_requests=46",
        )
    finally:
        server.close()
    assert len(server.requests) == 46
    measures = read_measures(folder)
    assert measures.judgement.status == "measured"
    assert "evaluation steps written by the judge (judge_steps.json)" in measures.judgement.note
    assert [found.name for found in measures.degradations] == [
        "judge without token probabilities",
        "judge budget spent",
    ]
    assert measures.degradations[0].detail.startswith("20 of ")
    scores = {score.criterion: score for score in measures.judgement.scores}
    # Both labels were asked about before the budget ended; what was not asked is missing and not "outside the form".
    assert scores["harmlessness"].n > 0
    assert scores["helpfulness"].n > 0
    assert {score.base for score in scores.values() if score.n} == {0.75}
    assert scores["honesty"].missing_base > 0
    assert scores["honesty"].unparsed_base == 0
    kept = json.loads((folder / "judge_steps.json").read_text(encoding="utf-8"))
    assert kept["criteria"]["honesty"] == {"source": "judge", "steps": ["Read the answer.", "Give 5 or 1."]}


def test_fixed_steps_ask_the_judge_for_none(workshop):
    server = Server([(200, GOOD, {}, 0.0)])
    try:
        folder = workshop.evaluate(
            "fixed",
            "evaluate.judge.kind=endpoint",
            f"evaluate.judge.base_url={server.url}",
            "evaluate.judge.model=some-judge",
            "evaluate.judge.steps=fixed",
            "evaluate.judge.max_prompts=2",
        )
    finally:
        server.close()
    measures = read_measures(folder)
    assert measures.degradations == ()
    assert "fixed evaluation steps" in measures.judgement.note
    assert all("Score (1-5):" in request["messages"][0]["content"] for request in server.requests)
    assert all(score.base == pytest.approx(3.25 / 4) for score in measures.judgement.scores)
    assert all(score.mass_base == pytest.approx(1.0) for score in measures.judgement.scores)
