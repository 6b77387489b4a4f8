"""A judge behind an OpenAI-compatible endpoint: chat completions with `logprobs` and `top_logprobs`.

Failures that pass (429, 5xx, time-outs, broken connections) are tried again, a bounded number of times, after what
`Retry-After` says or after growing pauses. What fails for good is a missing score; when the server cannot be used at
all, `JudgeUnavailable` says why. The key is read from the environment, sent as a bearer token and never written
anywhere: what a server says about itself is cleaned of it before it is quoted.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import httpx2
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt

from jobs.evaluate.judge.scoring import DigitScore, Question, score_probabilities, score_written
from pipeline_common.config import JudgeConfig
from pipeline_common.judge_form import DIGITS, render_form
from pipeline_common.logs import get_logger
from pipeline_common.progress import track

TOP_LOGPROBS: Final = 20
MAX_PAUSE_S: Final = 60.0
"""Longest pause between two attempts, whatever `Retry-After` says."""
MAX_FAILURES_IN_A_ROW: Final = 8
"""After so many failed questions in a row the server is taken for gone."""
_log = get_logger(__name__)


class JudgeUnavailable(Exception):  # noqa: N818 - a state of the world that the caller reports, not a bug
    """The endpoint cannot be used; the message says why and holds no secret."""


class _PassingFailure(Exception):  # noqa: N818
    """Worth another attempt."""

    def __init__(self, why: str, pause_s: float | None = None) -> None:
        super().__init__(why)
        self.pause_s = pause_s


class _LastingFailure(Exception):  # noqa: N818
    """The server refuses: the same request would be refused again."""


@dataclass(frozen=True)
class EndpointAnswers:
    """What came back."""

    scores: tuple[DigitScore, ...]
    without_probabilities: int
    """Answers without logprobs, scored by the digit that was written."""


def ask_endpoint(
    questions: Sequence[Question], config: JudgeConfig, key: str | None, *, first_pause_s: float = 0.5
) -> EndpointAnswers:
    """Let the endpoint fill in every form.

    Args:
        questions: what is asked.
        config: address, model, time-out, attempts, concurrency, least digit mass.
        key: API key; None = none is sent.
        first_pause_s: pause before the second attempt; doubles from then on.

    Returns:
        One score per question, missing ones with their reason.

    Raises:
        JudgeUnavailable: the first question fails, or many in a row do.
    """
    if not questions:
        return EndpointAnswers((), 0)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with httpx2.Client(timeout=config.timeout_s, headers=headers, follow_redirects=False) as client:
        judge = _Endpoint(client, config, key, first_pause_s)
        # One question alone first: a wrong address or key shows before hundreds of requests are sent.
        first = judge.ask(questions[0])
        if judge.failures:
            raise JudgeUnavailable(judge.last_failure)
        with ThreadPoolExecutor(config.concurrency) as pool, track("judge", len(questions)) as advance:
            scores = [first]
            try:
                for score in pool.map(judge.ask, questions[1:]):
                    scores.append(score)
                    advance(len(scores))
            except BaseException:
                # Stopped from outside: what is queued returns at once instead of being asked.
                judge.gone.set()
                raise
    if judge.gone.is_set():
        raise JudgeUnavailable(
            f"{MAX_FAILURES_IN_A_ROW} questions in a row failed, the last with: {judge.last_failure}"
        )
    return EndpointAnswers(tuple(scores), judge.without_probabilities)


class _Endpoint:
    """One server; its counters are shared by the asking threads."""

    def __init__(self, client: httpx2.Client, config: JudgeConfig, key: str | None, first_pause_s: float) -> None:
        self._client = client
        self._config = config
        self._key = key
        self._first_pause_s = first_pause_s
        self._url = f"{str(config.base_url).rstrip('/')}/chat/completions"
        self._lock = threading.Lock()
        self.gone = threading.Event()
        self.failures = 0
        """Failed questions since the last that was answered."""
        self.last_failure = ""
        self.without_probabilities = 0

    def ask(self, question: Question) -> DigitScore:
        """One question, with its attempts."""
        if self.gone.is_set():
            return DigitScore(missing="not asked: the judge was taken for gone")
        form = render_form(question.criterion, question.request, question.answer)
        retrying = Retrying(
            stop=stop_after_attempt(self._config.max_attempts),
            wait=self._pause,
            retry=retry_if_exception_type(_PassingFailure),
            sleep=self._sleep,
            reraise=True,
        )
        try:
            reply: Any = retrying(self._post, form)
        except (_PassingFailure, _LastingFailure) as failure:
            return self._note_failure(str(failure))
        with self._lock:
            self.failures = 0
        return self._read(reply)

    def _post(self, form: str) -> Any:
        body = {
            "model": self._config.model,
            "messages": [{"role": "user", "content": form}],
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": TOP_LOGPROBS,
        }
        where = describe_address(self._url)
        try:
            response = self._client.post(self._url, json=body)
        except httpx2.TimeoutException as error:
            raise _PassingFailure(f"{where} did not answer within {self._config.timeout_s:g} s") from error
        except httpx2.InvalidURL as error:
            raise _LastingFailure(f"{where} is no usable address") from error
        except httpx2.TransportError as error:
            raise _PassingFailure(f"{where} is unreachable ({type(error).__name__})") from error
        if response.status_code == httpx2.codes.TOO_MANY_REQUESTS or response.status_code >= 500:
            raise _PassingFailure(f"{where} answered HTTP {response.status_code}", read_retry_after(response.headers))
        if response.status_code != httpx2.codes.OK:
            raise _LastingFailure(f"{where} answered HTTP {response.status_code}: {self._quote(response.text)}")
        try:
            return response.json()
        except ValueError:
            return None

    def _read(self, reply: Any) -> DigitScore:
        probabilities, text = read_reply(reply)
        if probabilities is not None:
            return score_probabilities(probabilities, self._config.min_digit_mass)
        if text is None:
            return DigitScore(missing="the judge's reply is no chat completion")
        with self._lock:
            self.without_probabilities += 1
        return score_written(self._clean(text))

    def _note_failure(self, why: str) -> DigitScore:
        with self._lock:
            self.failures += 1
            self.last_failure = why
            if self.failures >= MAX_FAILURES_IN_A_ROW:
                self.gone.set()
        _log.debug("judge: %s", why)
        return DigitScore(missing=why)

    def _pause(self, state: RetryCallState) -> float:
        failure = state.outcome.exception() if state.outcome else None
        asked = failure.pause_s if isinstance(failure, _PassingFailure) else None
        growing = self._first_pause_s * 2 ** (state.attempt_number - 1)
        return float(min(MAX_PAUSE_S, growing if asked is None else asked))

    def _sleep(self, seconds: float) -> None:
        # Ends early when another thread finds the server gone.
        self.gone.wait(seconds)

    def _quote(self, text: str) -> str:
        return self._clean(" ".join(text.split()))[:200]

    def _clean(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def read_reply(reply: Any) -> tuple[dict[str, float] | None, str | None]:
    """Digit probabilities and text of a chat completion.

    Returns:
        (digit -> probability of all its spellings, or None when the server gave no logprobs; text, or None when
        this is no chat completion).
    """
    try:
        choice = reply["choices"][0]
        text = choice["message"]["content"]
    except (TypeError, KeyError, IndexError):
        return None, None
    if not isinstance(text, str):
        return None, None
    try:
        entries = choice["logprobs"]["content"][0]["top_logprobs"]
        found = [(str(entry["token"]).strip(), float(entry["logprob"])) for entry in entries]
    except (TypeError, KeyError, IndexError, ValueError):
        return None, text
    probabilities: dict[str, float] = {}
    for token, log_probability in found:
        if token in DIGITS and log_probability <= 0:
            probabilities[token] = probabilities.get(token, 0.0) + math.exp(log_probability)
    return (probabilities, text) if found else (None, text)


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by the `Retry-After` header; None without one, or where it is a date."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if seconds >= 0 and math.isfinite(seconds) else None


def describe_address(url: str) -> str:
    """A URL without user, password and query."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return urlunsplit((parts.scheme, f"{host}:{parts.port}" if parts.port else host, parts.path, "", ""))
