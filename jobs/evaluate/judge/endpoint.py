"""A judge behind an OpenAI-compatible endpoint: chat completions with `logprobs` and `top_logprobs`.

A server that gives no token probabilities (it leaves them out, or refuses to be asked for them) is sampled instead:
`evaluate.judge.samples` replies per question at temperature 1, whose mean estimates the expectation (as Liu et al. did
with GPT-4). What fails for good is a missing score; when the server cannot be used at all, `JudgeUnavailable` says why.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import httpx2

from jobs.evaluate.judge.chat_client import (
    MAX_FAILURES_IN_A_ROW,
    ChatClient,
    JudgeUnavailable,
    NoReply,
    NotAsked,
)
from jobs.evaluate.judge.scoring import DigitScore, Question, score_probabilities, score_samples
from jobs.evaluate.judge.steps import MAX_STEP_TOKENS, PlanSteps, StepPlan, fixed_steps
from pipeline_common.config import JudgeConfig
from pipeline_common.judge_form import DIGITS, render_form
from pipeline_common.progress import track

TOP_LOGPROBS: Final = 20
REPLY_TOKENS: Final = 4
"""Enough to see whether a digit stands alone or begins a "10/10"."""
_LONGER_NUMBER = re.compile(r"^\s*\d(?:\d|\s*/\s*\d|[.,:-]\d)")


@dataclass(frozen=True)
class EndpointAnswers:
    """What came back."""

    scores: tuple[DigitScore, ...]
    sampled: int
    """Questions that were sampled, for want of token probabilities."""
    not_asked: int
    """Questions left without a score because the request budget was spent."""
    steps: StepPlan


def ask_endpoint(
    questions: Sequence[Question],
    config: JudgeConfig,
    key: str | None,
    *,
    plan_steps: PlanSteps | None = None,
    first_pause_s: float = 0.5,
) -> EndpointAnswers:
    """Let the endpoint fill in every form.

    Args:
        questions: what is asked.
        config: address, model, time-out, attempts, concurrency, least digit mass, samples, budget.
        key: API key; None = none is sent.
        plan_steps: finds the evaluation steps, given a way to ask the judge; None = the fixed ones.
        first_pause_s: pause before the second attempt; doubles from then on.

    Returns:
        One score per question, missing ones with their reason.

    Raises:
        JudgeUnavailable: the first request fails, or many in a row do.
    """
    if not questions:
        return EndpointAnswers((), 0, 0, fixed_steps())
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with httpx2.Client(timeout=config.timeout_s, headers=headers, follow_redirects=False) as http:
        client = ChatClient(http, config, key, first_pause_s)
        steps = plan_steps(lambda request: _write(client, request)) if plan_steps else fixed_steps()
        judge = _Judge(client, config, steps)
        # One question alone first: a wrong address or key shows before hundreds of requests are sent, and whether the
        # server gives probabilities is known before the others are asked.
        first = judge.ask(questions[0])
        if client.failures:
            raise JudgeUnavailable(client.last_failure)
        judge.samples_only = first.samples is not None
        with ThreadPoolExecutor(config.concurrency) as pool, track("judge", len(questions)) as advance:
            scores = [first]
            try:
                for score in pool.map(judge.ask, questions[1:]):
                    scores.append(score)
                    advance(len(scores))
            except BaseException:
                # Stopped from outside: what is queued returns at once instead of being asked.
                client.gone.set()
                raise
    if client.gone.is_set():
        raise JudgeUnavailable(
            f"{MAX_FAILURES_IN_A_ROW} questions in a row failed, the last with: {client.last_failure}"
        )
    return EndpointAnswers(tuple(scores), judge.sampled, judge.not_asked, steps)


class _Judge:
    """Asks questions, from several threads."""

    def __init__(self, client: ChatClient, config: JudgeConfig, steps: StepPlan) -> None:
        self._client = client
        self._config = config
        self._steps = steps
        self._lock = threading.Lock()
        self.samples_only = False
        """The server is known to give no probabilities."""
        self.sampled = 0
        self.not_asked = 0

    def ask(self, question: Question) -> DigitScore:
        """The score of one question, or why there is none."""
        steps = self._steps[question.criterion].steps
        form = render_form(question.criterion, question.request, question.answer, steps=steps)
        try:
            score = None if self.samples_only else self._ask_probabilities(form)
            return score or self._ask_samples(form)
        except NotAsked as reason:
            with self._lock:
                self.not_asked += 1
            return DigitScore(missing=str(reason))
        except NoReply as reason:
            return DigitScore(missing=str(reason))

    def _ask_probabilities(self, form: str) -> DigitScore | None:
        """One reply with token probabilities; None when there were none."""
        try:
            reply = self._client.complete(
                form, max_tokens=REPLY_TOKENS, temperature=0, logprobs=True, top_logprobs=TOP_LOGPROBS
            )
        except NotAsked:
            raise
        except NoReply as failure:
            if "logprob" not in failure.refused.lower():
                raise
            self._client.forgive()
            return None
        probabilities, text = read_reply(reply)
        if text is None:
            return DigitScore(missing="the judge's reply is no chat completion", unparsed=True)
        if probabilities is None:
            return None
        score = score_probabilities(probabilities, self._config.min_digit_mass)
        if score.score is not None and _LONGER_NUMBER.match(text):
            wrote = self._client.clean(text)[:40]
            missing = f"the judge wrote {wrote!r}, expected one digit from 1 to 5"
            return DigitScore(mass=score.mass, missing=missing, unparsed=True)
        return score

    def _ask_samples(self, form: str) -> DigitScore:
        self._client.reserve(self._config.samples)
        texts = []
        for seed in range(self._config.samples):
            reply = self._client.complete(form, reserved=True, max_tokens=REPLY_TOKENS, temperature=1, seed=seed)
            texts.append(self._client.clean(read_reply(reply)[1] or ""))
        with self._lock:
            self.sampled += 1
        return score_samples(texts, self._config.min_digit_mass)


def _write(client: ChatClient, request: str) -> str:
    """A longer reply, for the evaluation steps."""
    try:
        reply = client.complete(request, max_tokens=MAX_STEP_TOKENS, temperature=0)
    except NoReply as reason:
        raise JudgeUnavailable(str(reason)) from reason
    return client.clean(read_reply(reply)[1] or "")


def read_reply(reply: Any) -> tuple[dict[str, float] | None, str | None]:
    """Digit probabilities and text of a chat completion.

    Returns:
        (digit -> probability of all its spellings at the first token that is more than space, or None when the
        server gave no logprobs; text, or None when this is no chat completion).
    """
    try:
        choice = reply["choices"][0]
        text = choice["message"]["content"]
    except (TypeError, KeyError, IndexError):
        return None, None
    if not isinstance(text, str):
        return None, None
    try:
        positions = choice["logprobs"]["content"]
        first = next((entry for entry in positions if str(entry["token"]).strip()), positions[0])
        found = [(str(entry["token"]).strip(), float(entry["logprob"])) for entry in first["top_logprobs"]]
    except (TypeError, KeyError, IndexError, ValueError):
        return None, text
    probabilities: dict[str, float] = {}
    for token, log_probability in found:
        if token in DIGITS and log_probability <= 0:
            probabilities[token] = probabilities.get(token, 0.0) + math.exp(log_probability)
    return (probabilities, text) if found else (None, text)
