"""Jobs, pods and events as the API shows them."""

from __future__ import annotations


def job(*conditions: tuple[str, str], **status) -> dict:
    found = [{"type": kind, "status": "True", "reason": reason, "message": "told"} for kind, reason in conditions]
    return {
        "metadata": {"name": "train-0123abcd", "uid": "1", "labels": {"alignment-pipeline/stage": "train"}},
        "spec": {"activeDeadlineSeconds": 60},
        "status": {"conditions": found, **status},
    }


def pod(
    phase: str = "Pending", name: str = "train-0123abcd-x", created: str = "2026-01-01T00:00:00Z", **status
) -> dict:
    return {
        "metadata": {"name": name, "uid": name, "creationTimestamp": created},
        "spec": {"nodeName": "gpu-node-1"},
        "status": {"phase": phase, **status},
    }


def ended(code: int, reason: str = "Error", at: str = "2026-01-01T00:01:00Z", message: str = "last words") -> dict:
    state = {"exitCode": code, "reason": reason, "finishedAt": at, "message": message}
    return {"containerStatuses": [{"name": "stage", "state": {"terminated": state}}]}


def waiting(reason: str, message: str = "why") -> dict:
    return {"containerStatuses": [{"name": "stage", "state": {"waiting": {"reason": reason, "message": message}}}]}


UNSCHEDULED = {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1"}]}
EVENT = {"type": "Warning", "reason": "FailedMount", "message": "secret not found\n", "lastTimestamp": "2026-01-01"}
