"""What a single pod waits for and how it ended, in words. Pure functions on the API's objects."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from jobs.pipeline.cluster.templates import PIPELINE_CONTAINER, STAGE_CONTAINER, condition
from jobs.pipeline.cluster.volumes import explain_volume
from jobs.pipeline.machine import Phase, meaning

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
_TRIED_NAME: Final = re.compile(r'(pods "[^"]*-)[a-z0-9]{5}"')


def describe_start(pod: Json, events: Sequence[Json]) -> tuple[Phase, str]:
    """Whether a pod that has not ended runs, and where, or what it waits for."""
    if (pod.get("status") or {}).get("phase") == "Running":
        node = pod["spec"].get("nodeName")
        return Phase.RUNNING, f"running{f' on {node}' if node else ''}"
    unscheduled = _condition_of(pod, "PodScheduled", "False")
    if unscheduled is not None:
        message = unscheduled.get("message") or newest_event(events, warning=True) or unscheduled.get("reason", "")
        return Phase.QUEUED, f"queued: {explain_volume(message)}"
    waiting = blocked_by(pod)
    if waiting is not None:
        reason, message = waiting
        return Phase.QUEUED, f"waiting: {BLOCKING[reason]} ({reason}: {message})"
    told = newest_event(events, warning=True)
    return Phase.QUEUED, f"starting: {explain_volume(told) or 'image and volumes'}"


def blocked_by(pod: Json) -> tuple[str, str] | None:
    """Why a pod's container cannot start: the kubelet's word and its message."""
    status = pod.get("status") or {}
    for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        waiting = container.get("state", {}).get("waiting") or {}
        if waiting.get("reason") in BLOCKING:
            return waiting["reason"], waiting.get("message", "no message")
    return None


def describe_end(pod: Json) -> tuple[int | None, str, str | None]:
    """How a pod ended: exit code, words, the container's termination message."""
    status = pod.get("status") or {}
    ended = terminated(pod)
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


def is_active(pod: Json) -> bool:
    """Whether it runs or may yet."""
    return (pod.get("status") or {}).get("phase") in {"Pending", "Running", None}


def has_failed(pod: Json) -> bool:
    """Whether it ended, and not well."""
    ended = terminated(pod)
    return (pod.get("status") or {}).get("phase") == "Failed" or (ended is not None and ended.get("exitCode") != 0)


def last_ended(pods: Sequence[Json]) -> Json | None:
    """The pod that ended last, else the newest of those that failed without running, else the newest."""
    ended = [pod for pod in pods if terminated(pod) is not None]
    if ended:
        return max(ended, key=lambda pod: (ended_at(pod), pod["metadata"]["name"]))
    failed = [pod for pod in by_age(pods) if (pod.get("status") or {}).get("phase") == "Failed"]
    candidates = failed or by_age(pods)
    return candidates[-1] if candidates else None


def describe_last_end(pods: Sequence[Json]) -> str:
    """How the attempt before this one ended."""
    ended = [pod for pod in pods if terminated(pod) is not None or (pod.get("status") or {}).get("phase") == "Failed"]
    pod = last_ended(ended)
    return f"the last one {describe_end(pod)[1]}" if pod is not None else "the last one's pod is gone"


def terminated(pod: Json) -> Json | None:
    """How the pod's own container ended; None while it has not."""
    for container in (pod.get("status") or {}).get("containerStatuses", []):
        if container["name"] in {STAGE_CONTAINER, PIPELINE_CONTAINER}:
            state = container.get("state", {}).get("terminated") or container.get("lastState", {}).get("terminated")
            return state if state else None
    return None


def ended_at(pod: Json) -> str:
    """When its container ended, as the API writes it; empty while that is not known."""
    return str((terminated(pod) or {}).get("finishedAt") or "")


def newest_event(events: Sequence[Json], *, warning: bool) -> str:
    """The newest event's reason and message; empty when there is none."""
    chosen = [event for event in events if not warning or event.get("type") == "Warning"]
    if not chosen:
        return ""
    newest = max(chosen, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
    # A pod that may not be created is tried under ever new names: without them it is one reason, told once.
    told = _TRIED_NAME.sub(r'\1..."', newest.get("message", "").strip())
    return f"{newest.get('reason', '')}: {told}"


def seconds_since(moment: str, now: datetime) -> float:
    """Seconds from an API time stamp to `now`."""
    return (now - datetime.fromisoformat(moment.replace("Z", "+00:00"))).total_seconds()


def _condition_of(pod: Json, kind: str, value: str) -> Json | None:
    found = (pod.get("status") or {}).get("conditions") or []
    return next((entry for entry in found if entry["type"] == kind and entry["status"] == value), None)
