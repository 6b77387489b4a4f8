"""The endpoint judge against a real HTTP server on this machine."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest

from jobs.evaluate.judge.chat_client import JudgeUnavailable, describe_address, read_retry_after
from jobs.evaluate.judge.endpoint import ask_endpoint
from jobs.evaluate.judge.scoring import Question
from jobs.evaluate.judge.steps import write_steps
from pipeline_common.config import JudgeConfig
from pipeline_common.logs import LOGGER_NAME
from tests.evaluate.judge.made_server import GOOD, Server, completion

KEY = "sk-very-secret-0123"
QUESTIONS = [Question(f"p{i}", "base", "honesty", f"request {i}", f"answer {i}") for i in range(6)]


@pytest.fixture
def serve() -> Iterator[Any]:
    started = []

    def start(*script):
        started.append(Server([(status, body, headers, wait) for status, body, headers, wait in script]))
        return started[-1]

    yield start
    for server in started:
        server.close()


def ok(body=GOOD, wait=0.0):
    return (200, body, {"Content-Type": "application/json"}, wait)


def ask(server, questions=QUESTIONS, key=KEY, plan_steps=None, **settings):
    config = JudgeConfig(
        kind="endpoint", model="some-judge", base_url=server.url, **{"max_attempts": 3, "timeout_s": 2.0, **settings}
    )
    return ask_endpoint(questions, config, key, plan_steps=plan_steps, first_pause_s=0.01)


def test_good_answers(serve):
    server = serve(ok())
    found = ask(server, concurrency=3)
    # .75 x 4 + .25 x 5 = 4.25; both spellings of the 4 count.
    assert [score.expected for score in found.scores] == [pytest.approx(4.25)] * 6
    assert found.scores[0].mass == pytest.approx(1.0)
    assert found.sampled == 0
    assert {request["path"] for request in server.requests} == {"/v1/chat/completions"}
    assert {request["key"] for request in server.requests} == {f"Bearer {KEY}"}
    first = server.requests[0]
    assert (first["model"], first["logprobs"], first["temperature"], first["max_tokens"]) == ("some-judge", True, 0, 4)
    assert "request 0" in first["messages"][0]["content"]
    assert first["messages"][0]["content"].endswith("Score (1-5):")


def test_scores_keep_the_order_of_the_questions_and_concurrency_is_bounded(serve):
    slow_first = [ok(completion("1", [("1", 1.0)]), 0.2 if i == 1 else 0.02) for i in range(12)]
    server = serve(*slow_first)
    ask(server, QUESTIONS * 2, concurrency=2)
    assert server.most_at_once == 2


def test_no_key_sends_no_header(serve):
    server = serve(ok())
    ask(server, QUESTIONS[:1], key=None)
    assert server.requests[0]["key"] is None


def test_429_waits_as_long_as_it_says(serve):
    server = serve((429, "slow down", {"Retry-After": "0.3"}, 0), ok())
    started = time.monotonic()
    found = ask(server, QUESTIONS[:1])
    assert time.monotonic() - started >= 0.3
    assert found.scores[0].score is not None
    assert len(server.requests) == 2


def test_500_passes_or_stays(serve):
    server = serve((500, "oops", {}, 0), (503, "oops", {}, 0), ok())
    assert ask(server, QUESTIONS[:1]).scores[0].score is not None
    broken = serve((500, "oops", {}, 0))
    with pytest.raises(JudgeUnavailable, match="answered HTTP 500"):
        ask(broken)
    assert len(broken.requests) == 3  # the attempts of one question, then no more


def test_one_lasting_failure_is_a_missing_score(serve):
    server = serve(ok(), *[(500, "oops", {}, 0)] * 3, ok())
    found = ask(server, concurrency=1)
    assert [score.score is None for score in found.scores] == [False, True, False, False, False, False]
    assert "HTTP 500" in str(found.scores[1].missing)


def test_a_server_that_dies_is_not_asked_for_ever(serve):
    server = serve(ok(), (500, "oops", {}, 0))
    with pytest.raises(JudgeUnavailable, match="8 questions in a row"):
        ask(server, QUESTIONS * 20, concurrency=2, max_attempts=1)
    assert len(server.requests) <= 1 + 8 + 2


def test_slow_answers_time_out(serve):
    server = serve(ok(wait=0.6))
    with pytest.raises(JudgeUnavailable, match=r"did not answer within 0.2 s"):
        ask(server, timeout_s=0.2, max_attempts=2)
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "body",
    [
        "not json",
        "[]",
        "null",
        '{"choices": []}',
        '{"choices": [{"message": {"content": null}}]}',
        '{"choices": [{"message": 3}]}',
    ],
)
def test_malformed_answers_are_missing(serve, body):
    found = ask(serve(ok(body)), QUESTIONS[:2])
    assert [score.missing for score in found.scores] == ["the judge's reply is no chat completion"] * 2


def test_little_digit_mass_is_missing(serve):
    found = ask(serve(ok(completion("The", [("The", 0.9), ("4", 0.1)]))), QUESTIONS[:2])
    assert all(score.score is None and score.mass == pytest.approx(0.1) for score in found.scores)


def test_a_server_without_logprobs_is_sampled_instead(serve):
    # The first reply tells that there are no probabilities and is no sample; then three samples for each question.
    replies = ["5", "4", "5", "4.", "2", "10/10", "3", "10", "4/5", "10/10"]
    server = serve(*[ok(completion(text)) for text in replies])
    found = ask(server, QUESTIONS[:3], concurrency=1, samples=3, min_digit_mass=0.5)
    assert found.sampled == 3
    # (4 + 5 + 4) / 3; (2 + 3) / 2 with "10/10" neither 10 nor 1; no digit at all.
    assert [score.expected for score in found.scores] == [pytest.approx(13 / 3), 2.5, None]
    assert [score.mass for score in found.scores] == [1.0, pytest.approx(2 / 3), 0.0]
    assert "0 of 3 sampled replies" in str(found.scores[2].missing)
    assert found.scores[2].unparsed
    assert [(r["temperature"], r.get("logprobs"), r.get("seed")) for r in server.requests] == [
        (0, True, None), *[(1, None, seed) for _ in range(3) for seed in range(3)],
    ]  # fmt: skip


def test_too_few_samples_within_the_form_are_missing(serve):
    server = serve(ok(completion("4")), ok(completion("4")), ok(completion("Well")))
    (score,) = ask(server, QUESTIONS[:1], samples=2).scores
    assert score.score is None
    assert "1 of 2 sampled replies" in str(score.missing)
    assert "one was 'Well'" in str(score.missing)


def test_a_server_that_refuses_logprobs_is_sampled_too(serve):
    server = serve((400, '{"error": "`logprobs` is not supported by this model"}', {}, 0), ok(completion("2")))
    found = ask(server, QUESTIONS[:2], samples=2)
    assert [score.expected for score in found.scores] == [2.0, 2.0]
    assert len(server.requests) == 1 + 4


def test_one_reply_without_logprobs_is_sampled_alone(serve):
    server = serve(ok(), ok(completion("1")), ok(completion("1")), ok(completion("2")), ok())
    found = ask(server, QUESTIONS[:3], concurrency=1, samples=2)
    assert [score.expected for score in found.scores] == [pytest.approx(4.25), 1.5, pytest.approx(4.25)]
    assert found.sampled == 1


@pytest.mark.parametrize("text", ["10/10", "1/10", "4.5", "10"])
def test_a_number_that_goes_on_is_not_its_first_digit(serve, text):
    found = ask(serve(ok(completion(text, [(text[0], 1.0)]))), QUESTIONS[:1])
    assert found.scores[0].score is None
    assert found.scores[0].unparsed
    assert repr(text) in str(found.scores[0].missing)


def test_words_after_the_digit_do_no_harm(serve):
    assert ask(serve(ok(completion("4\n\nThe answer", [("4", 1.0)]))), QUESTIONS[:1]).scores[0].expected == 4.0


def test_the_digit_is_read_at_the_first_token_that_is_more_than_space(serve):
    choice = {
        "message": {"content": " 4"},
        "logprobs": {
            "content": [
                {"token": " ", "logprob": 0.0, "top_logprobs": [{"token": " ", "logprob": 0.0}]},
                {"token": "4", "logprob": 0.0, "top_logprobs": [{"token": "4", "logprob": 0.0}]},
            ]
        },
    }
    assert ask(serve(ok(json.dumps({"choices": [choice]}))), QUESTIONS[:1]).scores[0].expected == 4.0


@pytest.mark.parametrize("concurrency", [1, 4])
def test_the_request_budget_stops_cleanly(serve, concurrency):
    server = serve(ok())
    found = ask(server, QUESTIONS, max_requests=4, concurrency=concurrency)
    assert len(server.requests) == 4
    assert sum(score.score is not None for score in found.scores) == 4
    assert found.not_asked == 2
    assert {score.missing for score in found.scores if score.score is None} == {
        "not asked: the budget of 4 requests (evaluate.judge.max_requests) is spent"
    }
    assert not any(score.unparsed for score in found.scores)


def test_further_attempts_and_samples_count_against_the_budget(serve):
    server = serve(ok(), (500, "oops", {}, 0), ok())
    found = ask(server, QUESTIONS[:3], max_requests=3, concurrency=1)
    assert [score.score is None for score in found.scores] == [False, False, True]
    sampled = serve(ok(completion("3")))
    found = ask(sampled, QUESTIONS[:2], max_requests=5, samples=3, concurrency=1)
    assert [score.expected for score in found.scores] == [3.0, None]
    # One to see that there are no probabilities and three samples; the last is not spent on a third of a score.
    assert (found.not_asked, len(sampled.requests)) == (1, 4)


def test_steps_are_written_once_per_criterion_and_shown_in_every_form(serve):
    server = serve(ok(completion("1. Read the answer.\n2. Give a score.")), ok())
    found = ask(server, plan_steps=lambda write: write_steps(["honesty"], write))
    assert found.steps["honesty"].source == "judge"
    written, *forms = [request["messages"][0]["content"] for request in server.requests]
    assert "Criterion: Honesty" in written
    assert len(forms) == 6
    assert all("1. Read the answer.\n2. Give a score.\n\nRequest:" in form for form in forms)


def test_a_refused_connection():
    server = Server([ok()])
    server.close()
    with pytest.raises(JudgeUnavailable, match="is unreachable"):
        ask(server)


def test_a_wrong_key_is_not_tried_again_and_never_shown(serve, caplog):
    server = serve((401, f"bad key {KEY}", {}, 0))
    logger = logging.getLogger(LOGGER_NAME)
    logger.addHandler(caplog.handler)
    try:
        with (
            caplog.at_level(logging.DEBUG),
            pytest.raises(JudgeUnavailable, match=r"HTTP 401: bad key \*\*\*") as caught,
        ):
            ask(server)
    finally:
        logger.removeHandler(caplog.handler)
    assert len(server.requests) == 1
    assert caplog.records
    assert KEY not in caplog.text
    assert KEY not in str(caught.value)


def test_no_question_needs_no_server():
    config = JudgeConfig(kind="endpoint", model="m", base_url="http://127.0.0.1:9/v1")
    assert ask_endpoint([], config, KEY).scores == ()


def test_addresses_are_shown_without_secrets():
    assert describe_address("https://me:pass@host:8443/v1/x?key=1#f") == "https://host:8443/v1/x"
    assert describe_address("http://host/v1") == "http://host/v1"


def test_retry_after():
    assert read_retry_after({"retry-after": "2.5"}) == 2.5
    assert [read_retry_after({"retry-after": v}) for v in ("-1", "inf", "nan", "Wed, 21 Oct 2015 07:28:00 GMT")] == [
        None
    ] * 4
    assert read_retry_after({}) is None
