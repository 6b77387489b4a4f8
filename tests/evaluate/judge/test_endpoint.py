"""The endpoint judge against a real HTTP server on this machine."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from jobs.evaluate.judge.endpoint import JudgeUnavailable, ask_endpoint, describe_address, read_retry_after
from jobs.evaluate.judge.scoring import Question
from pipeline_common.config import JudgeConfig
from pipeline_common.logs import LOGGER_NAME

KEY = "sk-very-secret-0123"
QUESTIONS = [Question(f"p{i}", "base", "honesty", f"request {i}", f"answer {i}") for i in range(6)]


def completion(text="4", probabilities=None):
    choice: dict[str, Any] = {"message": {"role": "assistant", "content": text}}
    if probabilities is not None:
        top = [{"token": token, "logprob": math.log(p)} for token, p in probabilities]
        choice["logprobs"] = {"content": [{"token": text, "logprob": top[0]["logprob"], "top_logprobs": top}]}
    return json.dumps({"choices": [choice]})


GOOD = completion("4", [("4", 0.5), (" 4", 0.25), ("5", 0.25)])


class Server:
    """Answers from a script: (status, body, headers, seconds to wait) per request; the last one is repeated."""

    def __init__(self, script):
        self.requests: list[dict[str, Any]] = []
        self.most_at_once = self._now = 0
        lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    server._now += 1
                    server.most_at_once = max(server.most_at_once, server._now)
                    place = len(server.requests)
                    server.requests.append({"path": self.path, "key": self.headers.get("Authorization"), **body})
                status, text, headers, wait = script[min(place, len(script) - 1)]
                time.sleep(wait)
                with lock:
                    server._now -= 1
                try:
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(text.encode())
                except BrokenPipeError:
                    pass  # the client gave up waiting, as it should

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def close(self):
        self.http.shutdown()
        self.http.server_close()


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


def ask(server, questions=QUESTIONS, key=KEY, **settings):
    config = JudgeConfig(
        kind="endpoint", model="some-judge", base_url=server.url, **{"max_attempts": 3, "timeout_s": 2.0, **settings}
    )
    return ask_endpoint(questions, config, key, first_pause_s=0.01)


def test_good_answers(serve):
    server = serve(ok())
    found = ask(server, concurrency=3)
    # .75 x 4 + .25 x 5 = 4.25; both spellings of the 4 count.
    assert [score.expected for score in found.scores] == [pytest.approx(4.25)] * 6
    assert found.scores[0].mass == pytest.approx(1.0)
    assert found.without_probabilities == 0
    assert {request["path"] for request in server.requests} == {"/v1/chat/completions"}
    assert {request["key"] for request in server.requests} == {f"Bearer {KEY}"}
    first = server.requests[0]
    assert (first["model"], first["logprobs"], first["temperature"], first["max_tokens"]) == ("some-judge", True, 0, 1)
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


def test_a_server_without_logprobs_is_counted_and_scored_by_its_digit(serve):
    found = ask(serve(ok(completion("4")), ok(completion("10/10"))), QUESTIONS[:2])
    assert found.without_probabilities == 2
    assert found.scores[0].score == 0.75
    assert found.scores[0].mass is None
    assert "'10/10'" in str(found.scores[1].missing)


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
