"""What a Job waits for and why it failed, in words. Pure functions on the API's objects.

A Job's own conditions say little: the pods, their containers and the events about both hold the reasons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from jobs.pipeline.cluster.machines import attempt_of, index_of, list_indexes, machine_count, parse_indexes
from jobs.pipeline.cluster.pods import (
    BLOCKING,
    blocked_by,
    by_age,
    describe_end,
    describe_last_end,
    describe_start,
    ended_at,
    has_failed,
    is_active,
    last_ended,
    newest_event,
    terminated,
)
from jobs.pipeline.cluster.templates import condition
from jobs.pipeline.machine import Failure, Observation, Phase

Json = Mapping[str, Any]
# What the other machines end with when one is gone: told to stop, or a partner that does not answer.
_TOLD_TO_STOP: Final = 143
_UNEXPECTED: Final = 1


def observe_job(job: Json | None, pods: Sequence[Json] = (), events: Sequence[Json] = ()) -> Observation:
    """Where a stage's Job is.

    Args:
        job: the Job; None when there is none.
        pods: its pods, as far as they are known.
        events: events about the Job and its pods.
    """
    if job is None:
        return Observation(Phase.ABSENT)
    if condition(job, "Complete") is not None:
        return Observation(Phase.SUCCEEDED)
    failed = condition(job, "Failed")
    if failed is not None:
        failure = explain_failure(job, pods)
        return Observation(Phase.FAILED, failure.reason, failure)
    if job["metadata"].get("deletionTimestamp"):
        return Observation(Phase.RUNNING, "the Job is being deleted")
    if condition(job, "FailureTarget") is not None:
        return Observation(Phase.RUNNING, "the Job has failed and its pods are ending")
    if is_suspended(job):
        told = newest_event(events, warning=False)
        return Observation(
            Phase.QUEUED, f"queued: suspended by its queue until there is quota for it{f' ({told})' if told else ''}"
        )
    if machine_count(job) > 1:
        return _observe_machines(job, pods, events)
    return _observe_active(job, pods, events)


def is_suspended(job: Json) -> bool:
    """Whether its queue holds it, or has just taken its place away. Only the queue ever says so, never this project."""
    return bool(job.get("spec", {}).get("suspend")) or condition(job, "Suspended") is not None


def _observe_active(job: Json, pods: Sequence[Json], events: Sequence[Json]) -> Observation:
    status = job.get("status") or {}
    attempts = int(status.get("failed") or 0)
    again = f", attempt {attempts + 1} ({describe_last_end(pods)})" if attempts else ""
    active = [pod for pod in by_age(pods) if is_active(pod)]
    if not active:
        if status.get("ready"):
            return Observation(Phase.RUNNING, f"running{again}")
        if any((pod.get("status") or {}).get("phase") == "Succeeded" for pod in pods):
            # The Job's controller has not counted it yet.
            return Observation(Phase.RUNNING, f"its pod has ended well{again}")
        told = newest_event(events, warning=True)
        return Observation(Phase.QUEUED, f"queued: {told or 'no pod yet'}{again}")
    phase, why = describe_start(active[-1], events)
    return Observation(phase, f"{why}{again}")


def _observe_machines(job: Json, pods: Sequence[Json], events: Sequence[Json]) -> Observation:
    """An Indexed Job: how many of its machines run, and what keeps the others. Running = no machine is missing."""
    count = machine_count(job)
    done = parse_indexes((job.get("status") or {}).get("completedIndexes"))
    newest = {index_of(pod): pod for pod in by_age(pods) if is_active(pod)}
    running = 0
    waiting: dict[str, list[int]] = {}
    for index in sorted(set(range(count)) - done):
        pod = newest.get(index)
        if pod is None:
            told = newest_event([event for event in events if _is_about(event, job)], warning=True)
            phase, why = Phase.QUEUED, f"queued: {told or 'no pod yet'}"
        else:
            phase, why = describe_start(pod, [event for event in events if _is_about(event, pod)])
        if phase is Phase.RUNNING:
            running += 1
        else:
            waiting.setdefault(why, []).append(index)
    if len(done) == count:
        return Observation(Phase.RUNNING, f"{count}/{count} machines are done")
    told_done = f", {len(done)} done" if done else ""
    parts = [f"{running}/{count} machines running{told_done}"]
    parts += [f"{list_indexes(indexes)} {why}" for why, indexes in waiting.items()]
    for index, pod in sorted(newest.items()):
        if attempt_of(pod) > 1:
            earlier = [other for other in pods if index_of(other) == index and other is not pod]
            parts.append(f"index {index}: attempt {attempt_of(pod)} ({describe_last_end(earlier)})")
    return Observation(Phase.QUEUED if waiting else Phase.RUNNING, "; ".join(parts))


def explain_failure(job: Json, pods: Sequence[Json]) -> Failure:
    """Why a failed Job failed: from its condition and the pod that is to blame."""
    stage = job["metadata"].get("labels", {}).get("alignment-pipeline/stage", job["metadata"]["name"])
    failed = condition(job, "Failed") or {}
    kind = failed.get("reason")
    several = machine_count(job) > 1
    pod = find_culprit(job, pods) if several else last_ended(pods)
    attempts = max(1, int((job.get("status") or {}).get("failed") or 0))
    if several:
        attempts = attempt_of(pod) if pod is not None else 1
    code, words, message = describe_end(pod) if pod is not None else (None, "", None)
    index = index_of(pod) if several and pod is not None else None
    if kind == "DeadlineExceeded":
        limit = job["spec"].get("activeDeadlineSeconds")
        waiting = next((found for found in map(blocked_by, pods) if found), None)
        stuck = f"; it never started: {BLOCKING[waiting[0]]} ({waiting[0]}: {waiting[1]})" if waiting else ""
        reason = f"took longer than its deadline (DeadlineExceeded: activeDeadlineSeconds {limit}){stuck}"
        code = index = None
    elif words:
        reason = f"(index {index} of {machine_count(job)} machines) {words}" if index is not None else words
    else:
        reason = f"failed: {failed.get('message') or kind or 'no reason was given'}; its pods are gone"
    if attempts > 1:
        reason += f", {attempts} attempts"
    return Failure(
        stage=stage,
        reason=reason,
        exit_code=code,
        condition=kind,
        message=message,
        job=job["metadata"]["name"],
        pod=pod["metadata"]["name"] if pod is not None else None,
        index=index,
        attempts=attempts,
    )


def find_culprit(job: Json, pods: Sequence[Json]) -> Json | None:
    """Of an Indexed Job's pods the one whose end made it fail: when one machine ends, the others soon fail too.

    It is among the indexes that the Job calls failed, or has a code that the Job does not try again. Of those whose
    last attempt failed, the first to end, unless it was told to, or only missed a partner.
    """
    failed = {index_of(pod): pod for pod in by_age(pods) if has_failed(pod)}
    if (condition(job, "Failed") or {}).get("reason") == "PodFailurePolicy":
        final = {
            code
            for rule in job["spec"].get("podFailurePolicy", {}).get("rules", [])
            if rule["action"] == "FailJob"
            for code in rule.get("onExitCodes", {}).get("values", [])
        }
        chosen = [pod for pod in failed.values() if (terminated(pod) or {}).get("exitCode") in final]
    else:
        spent = parse_indexes((job.get("status") or {}).get("failedIndexes"))
        chosen = [pod for index, pod in failed.items() if index in spent]
    candidates = chosen or list(failed.values())
    return min(candidates, key=_blame) if candidates else last_ended(pods)


def _blame(pod: Json) -> tuple[bool, str, bool, int]:
    code = (terminated(pod) or {}).get("exitCode")
    return (code == _TOLD_TO_STOP, ended_at(pod), code == _UNEXPECTED, index_of(pod))


def _is_about(event: Json, thing: Json) -> bool:
    return bool(event.get("involvedObject", {}).get("uid") == thing["metadata"].get("uid"))
