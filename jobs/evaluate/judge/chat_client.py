"""Requests to an OpenAI-compatible chat endpoint: attempts, pauses, a budget, and when to give up.

Failures that pass (429, 5xx, time-outs, broken connections) are tried again, a bounded number of times, after what
`Retry-After` says or after growing pauses. The key is sent as a bearer token and never written anywhere: what a server
says about itself is cleaned of it before it is quoted.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import httpx2
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt

from pipeline_common.config import JudgeConfig
from pipeline_common.logs import get_logger
from pipeline_common.redaction import scrub

MAX_PAUSE_S: Final = 60.0
"""Longest pause between two attempts, whatever `Retry-After` says."""
MAX_FAILURES_IN_A_ROW: Final = 8
"""After so many failed questions in a row the server is taken for gone."""
_log = get_logger(__name__)


class JudgeUnavailable(Exception):  # noqa: N818 - a state of the world that the caller reports, not a bug
    """The endpoint cannot be used; the message says why and holds no secret."""


class NoReply(Exception):  # noqa: N818
    """One request has no reply for good; the message says why and holds no secret."""

    def __init__(self, why: str, refused: str = "") -> None:
        super().__init__(why)
        self.refused = refused
        """What the server said when it refused the request as such (4xx)."""


class NotAsked(NoReply):
    """The request was not sent: the budget is spent, or the server is taken for gone."""


class _PassingFailure(Exception):  # noqa: N818
    """Worth another attempt."""

    def __init__(self, why: str, pause_s: float | None = None) -> None:
        super().__init__(why)
        self.pause_s = pause_s


class ChatClient:
    """One server; its counters are shared by the asking threads."""

    def __init__(self, http: httpx2.Client, config: JudgeConfig, key: str | None, first_pause_s: float) -> None:
        self._http = http
        self._config = config
        self._key = key
        self._first_pause_s = first_pause_s
        self._url = f"{str(config.base_url).rstrip('/')}/chat/completions"
        self._lock = threading.Lock()
        self.gone = threading.Event()
        """Set when the server is taken for gone, or the whole judgement is stopped."""
        self.requests = 0
        """Taken from the budget so far, further attempts included."""
        self.failures = 0
        """Failed requests since the last that was answered."""
        self.last_failure = ""

    def reserve(self, requests: int) -> None:
        """Take so many requests from the budget at once, or none: half a set of samples would be wasted.

        Args:
            requests: how many; 0 asks only whether the server is still there.

        Raises:
            NotAsked: the budget is spent or the server is taken for gone.
        """
        if self.gone.is_set():
            raise NotAsked("not asked: the judge was taken for gone, or asking was stopped")
        budget = self._config.max_requests
        with self._lock:
            if requests and budget is not None and self.requests + requests > budget:
                raise NotAsked(f"not asked: the budget of {budget} requests (evaluate.judge.max_requests) is spent")
            self.requests += requests

    def complete(self, prompt: str, *, reserved: bool = False, **options: Any) -> Any:
        """The reply to one user's turn, with its attempts.

        Args:
            prompt: what is asked.
            reserved: the first attempt has been taken from the budget by `reserve`.
            options: further fields of the request (`max_tokens`, `temperature`, ...).

        Returns:
            Parsed JSON; None when the body is none.

        Raises:
            NotAsked: the budget is spent or the server is taken for gone.
            NoReply: every attempt failed, or the server refuses the request.
        """
        body = {
            "model": self._config.model,
            "messages": [{"role": "user", "content": prompt}],
            **options,
        }
        retrying = Retrying(
            stop=stop_after_attempt(self._config.max_attempts),
            wait=self._pause,
            retry=retry_if_exception_type(_PassingFailure),
            sleep=self._sleep,
            reraise=True,
        )
        paid = 1 if reserved else 0

        def attempt() -> Any:
            nonlocal paid
            self.reserve(0 if paid else 1)
            paid = 0
            return self._post(body)

        try:
            reply: Any = retrying(attempt)
        except NotAsked:
            raise
        except _PassingFailure as failure:
            self._note_failure(str(failure))
            raise NoReply(str(failure)) from failure
        except NoReply as failure:
            self._note_failure(str(failure))
            raise
        with self._lock:
            self.failures = 0
        return reply

    def forgive(self) -> None:
        """Forget the last failure: it was about the request, not about the server."""
        with self._lock:
            self.failures = 0

    def clean(self, text: str) -> str:
        """A server's words without the key."""
        return scrub(text, [self._key] if self._key else [])

    def _post(self, body: Mapping[str, Any]) -> Any:
        where = describe_address(self._url)
        try:
            response = self._http.post(self._url, json=body)
        except httpx2.TimeoutException as error:
            raise _PassingFailure(f"{where} did not answer within {self._config.timeout_s:g} s") from error
        except httpx2.InvalidURL as error:
            raise NoReply(f"{where} is no usable address") from error
        except httpx2.TransportError as error:
            raise _PassingFailure(f"{where} is unreachable ({type(error).__name__})") from error
        if response.status_code == httpx2.codes.TOO_MANY_REQUESTS or response.status_code >= 500:
            raise _PassingFailure(f"{where} answered HTTP {response.status_code}", read_retry_after(response.headers))
        if response.status_code != httpx2.codes.OK:
            said = self.clean(" ".join(response.text.split()))[:200]
            raise NoReply(f"{where} answered HTTP {response.status_code}: {said}", refused=said)
        try:
            return response.json()
        except ValueError:
            return None

    def _note_failure(self, why: str) -> None:
        with self._lock:
            self.failures += 1
            self.last_failure = why
            if self.failures >= MAX_FAILURES_IN_A_ROW:
                self.gone.set()
        _log.debug("judge: %s", why)

    def _pause(self, state: RetryCallState) -> float:
        failure = state.outcome.exception() if state.outcome else None
        asked = failure.pause_s if isinstance(failure, _PassingFailure) else None
        growing = self._first_pause_s * 2 ** (state.attempt_number - 1)
        return float(min(MAX_PAUSE_S, growing if asked is None else asked))

    def _sleep(self, seconds: float) -> None:
        # Ends early when another thread finds the server gone.
        self.gone.wait(seconds)


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
