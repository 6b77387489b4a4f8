"""What a Job waits for and why it failed, in words. Pure functions on the API's objects.

A Job's own conditions say little: the pods, their containers and the events about both hold the reasons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from jobs.pipeline.cluster.templates import PIPELINE_CONTAINER, STAGE_CONTAINER, condition
from jobs.pipeline.machine import Failure, Observation, Phase, meaning

Json = Mapping[str, Any]
# States of a container that do not pass by themselves: a name is wrong, or something is missing.
BLOCKING: Final = {
    "ErrImagePull": "the image cannot be pulled",
    "ImagePullBackOff": "the image cannot be pulled",
    "InvalidImageName": "the image's name is not valid",
    "ErrImageNeverPull": "the image is not on the node, and may not be pulled",
    "CreateContainerConfigError": "a Secret, a ConfigMap or a key of one is missing",
    "CreateContainerError": "the container cannot be made",
    "RunContainerError": "the container cannot be started",
}
_EXIT_OOM: Final = 137


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
    if condition(job, "Suspended") is not None:
        told = _newest(events, warning=False)
        return Observation(
            Phase.QUEUED, f"queued: the Job is suspended until there is quota for it{f' ({told})' if told else ''}"
        )
    return _observe_active(job, pods, events)


def _observe_active(job: Json, pods: Sequence[Json], events: Sequence[Json]) -> Observation:
    status = job.get("status") or {}
    attempts = int(status.get("failed") or 0)
    again = f", attempt {attempts + 1} ({_last_end(pods)})" if attempts else ""
    active = [pod for pod in by_age(pods) if (pod.get("status") or {}).get("phase") in {"Pending", "Running", None}]
    if not active:
        if status.get("ready"):
            return Observation(Phase.RUNNING, f"running{again}")
        told = _newest(events, warning=True)
        return Observation(Phase.QUEUED, f"queued: {told or 'no pod yet'}{again}")
    pod = active[-1]
    if (pod.get("status") or {}).get("phase") == "Running":
        node = pod["spec"].get("nodeName")
        return Observation(Phase.RUNNING, f"running{f' on {node}' if node else ''}{again}")
    unscheduled = _condition_of(pod, "PodScheduled", "False")
    if unscheduled is not None:
        message = unscheduled.get("message") or _newest(events, warning=True) or unscheduled.get("reason", "")
        return Observation(Phase.QUEUED, f"queued: {message}{again}")
    waiting = blocked_by(pod)
    if waiting is not None:
        reason, message = waiting
        return Observation(Phase.QUEUED, f"waiting: {BLOCKING[reason]} ({reason}: {message}){again}")
    told = _newest(events, warning=True)
    return Observation(Phase.QUEUED, f"starting{f': {told}' if told else ': image and volumes'}{again}")


def blocked_by(pod: Json) -> tuple[str, str] | None:
    """Why a pod's container cannot start: the kubelet's word and its message."""
    status = pod.get("status") or {}
    for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        waiting = container.get("state", {}).get("waiting") or {}
        if waiting.get("reason") in BLOCKING:
            return waiting["reason"], waiting.get("message", "no message")
    return None


def explain_failure(job: Json, pods: Sequence[Json]) -> Failure:
    """Why a failed Job failed: from its condition and the pod that ended last."""
    stage = job["metadata"].get("labels", {}).get("alignment-pipeline/stage", job["metadata"]["name"])
    failed = condition(job, "Failed") or {}
    attempts = max(1, int((job.get("status") or {}).get("failed") or 0))
    pod = last_ended(pods)
    code, words, message = describe_end(pod) if pod is not None else (None, "", None)
    kind = failed.get("reason")
    if kind == "DeadlineExceeded":
        limit = job["spec"].get("activeDeadlineSeconds")
        waiting = next((found for found in map(blocked_by, pods) if found), None)
        stuck = f"; it never started: {BLOCKING[waiting[0]]} ({waiting[0]}: {waiting[1]})" if waiting else ""
        reason = f"took longer than its deadline (DeadlineExceeded: activeDeadlineSeconds {limit}){stuck}"
        code = None
    elif words:
        reason = words
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
        attempts=attempts,
    )


def describe_end(pod: Json) -> tuple[int | None, str, str | None]:
    """How a pod ended: exit code, words, the container's termination message."""
    status = pod.get("status") or {}
    ended = _terminated(pod)
    code = ended.get("exitCode") if ended else None
    message = ended.get("message") if ended else None
    if status.get("reason") == "Evicted":
        return code, f"was evicted from its node: {status.get('message', 'no message')}", message
    disrupted = condition(pod, "DisruptionTarget")
    if disrupted is not None:
        why = disrupted.get("message") or disrupted.get("reason") or "no message"
        return code, f"was removed from its node ({disrupted.get('reason', 'disruption')}: {why})", message
    if ended and ended.get("reason") == "OOMKilled":
        return (
            code,
            f"ran out of memory (OOMKilled, exit code {code}): raise the container's memory limit, or lower "
            "evaluate.batch_tokens or train.batch_size",
            message,
        )
    if code is not None:
        killed = " with SIGKILL" if code == _EXIT_OOM else ""
        return code, f"ended{killed} with exit code {code} ({meaning(code)})", message
    blocked = blocked_by(pod)
    if blocked is not None:
        return None, f"never started: {BLOCKING[blocked[0]]} ({blocked[0]}: {blocked[1]})", None
    return None, f"ended as {status.get('phase', 'unknown')}: {status.get('message', 'no message')}", None


def by_age(pods: Sequence[Json]) -> list[Json]:
    """Oldest first; the name decides between pods of one second."""
    return sorted(pods, key=lambda pod: (pod["metadata"].get("creationTimestamp", ""), pod["metadata"]["name"]))


def last_ended(pods: Sequence[Json]) -> Json | None:
    """The pod that ended last, else the newest of those that failed without running, else the newest."""
    ended = [pod for pod in pods if _terminated(pod) is not None]
    if ended:
        return max(ended, key=lambda pod: ((_terminated(pod) or {}).get("finishedAt") or "", pod["metadata"]["name"]))
    failed = [pod for pod in by_age(pods) if (pod.get("status") or {}).get("phase") == "Failed"]
    candidates = failed or by_age(pods)
    return candidates[-1] if candidates else None


def seconds_since(moment: str, now: datetime) -> float:
    """Seconds from an API time stamp to `now`."""
    return (now - datetime.fromisoformat(moment.replace("Z", "+00:00"))).total_seconds()


def _terminated(pod: Json) -> Json | None:
    for container in (pod.get("status") or {}).get("containerStatuses", []):
        if container["name"] in {STAGE_CONTAINER, PIPELINE_CONTAINER}:
            state = container.get("state", {}).get("terminated") or container.get("lastState", {}).get("terminated")
            return state if state else None
    return None


def _last_end(pods: Sequence[Json]) -> str:
    ended = [pod for pod in pods if _terminated(pod) is not None or (pod.get("status") or {}).get("phase") == "Failed"]
    pod = last_ended(ended)
    return f"the last one {describe_end(pod)[1]}" if pod is not None else "the last one's pod is gone"


def _condition_of(pod: Json, kind: str, value: str) -> Json | None:
    found = (pod.get("status") or {}).get("conditions") or []
    return next((entry for entry in found if entry["type"] == kind and entry["status"] == value), None)


def _newest(events: Sequence[Json], *, warning: bool) -> str:
    chosen = [event for event in events if not warning or event.get("type") == "Warning"]
    if not chosen:
        return ""
    newest = max(chosen, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
    return f"{newest.get('reason', '')}: {newest.get('message', '').strip()}"
