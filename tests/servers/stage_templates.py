"""The stages' CronJobs in short, and what the made Job controller reads of them."""

from __future__ import annotations

from typing import Any

BACKOFF_LIMIT = 2
FINAL_CODES = [2, 3, 4]
TOLD_TO_STOP = 143


def failure_policy() -> dict[str, Any]:
    """As in `k8s/base/pipeline/patches/every-stage.yaml`."""
    codes = {"containerName": "stage", "operator": "In"}
    return {
        "rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "Ignore", "onExitCodes": {**codes, "values": [TOLD_TO_STOP]}},
            {"action": "FailJob", "onExitCodes": {**codes, "values": FINAL_CODES}},
        ]
    }


def stage_template(stage: str) -> dict[str, Any]:
    """A CronJob as `k8s/pipeline.yaml` has it, in short."""
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": stage, "labels": {"app.kubernetes.io/name": "alignment-pipeline"}},
        "spec": {
            "schedule": "0 0 31 2 *",
            "suspend": True,
            "jobTemplate": {
                "metadata": {"labels": {"app.kubernetes.io/name": "alignment-pipeline"}},
                "spec": {
                    "backoffLimit": BACKOFF_LIMIT,
                    "podReplacementPolicy": "Failed",
                    "podFailurePolicy": failure_policy(),
                    "activeDeadlineSeconds": 3600,
                    "template": {
                        "metadata": {"labels": {"app.kubernetes.io/name": "alignment-pipeline"}},
                        "spec": {
                            "restartPolicy": "Never",
                            "containers": [{"name": "stage", "image": "made", "args": ["--config", "tiny"]}],
                        },
                    },
                },
            },
        },
    }
