"""Scheduler, kubelet and Job controller in one: acts out, for every Job that is created, the script of its stage.

The Job controller's part follows the templates: `podFailurePolicy` ignores disruptions and fails the Job on exit codes
2, 3 and 4; anything else counts against `backoffLimit` 2.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tests.servers.kubernetes_api import KubernetesApi, now

BACKOFF_LIMIT = 2
FINAL_CODES = {2, 3, 4}
_UNTIL_S = 60.0
NO_GPU = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. preemption: 0/1 nodes are available."


@dataclass(frozen=True)
class Step:
    """What happens next to a Job.

    `kind`: exit, oom, evicted, unschedulable, image, secret, quota, suspended, deadline, hang (runs until the Job is
    deleted). Each lasts `seconds`, or until the test has seen what it waits for and sets `until`; then the next step
    follows.
    """

    kind: str
    code: int = 0
    seconds: float = 0.02
    log: tuple[str, ...] = ()
    until: threading.Event | None = None

    def last(self) -> None:
        """Return when it is over."""
        if self.until is None:
            time.sleep(self.seconds)
        else:
            # When nobody ends it, the next step follows too, and the test says what was never seen.
            self.until.wait(_UNTIL_S)


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


class Kubelet:
    """Runs the scripts, each Job in a thread.

    Args:
        api: the cluster.
        scripts: stage -> steps; a stage without one ends well.
        publish: called with the stage's name and its Job when a container ends with code 0 or 4.
    """

    def __init__(
        self,
        api: KubernetesApi,
        scripts: Mapping[str, Sequence[Step]],
        publish: Callable[[str, Mapping[str, Any]], None],
    ) -> None:
        self.api = api
        self.scripts = scripts
        self.publish = publish
        self.ended_at: dict[str, float] = {}
        self.made = 0
        api.on_create = self.start

    def start(self, job: Mapping[str, Any]) -> None:
        """Act out a Job."""
        self.made += 1
        threading.Thread(target=self._play, args=(job,), daemon=True).start()

    def _play(self, job: Mapping[str, Any]) -> None:
        stage = job["metadata"]["labels"].get("alignment-pipeline/stage", "pipeline")
        name = job["metadata"]["name"]
        failed = 0
        pod: str | None = None
        for step in [*self.scripts.get(stage, ()), *([Step("exit")] * (BACKOFF_LIMIT + 1))]:
            if name not in self.api.objects["jobs"]:
                return
            if step.kind in {"suspended", "quota"}:
                self._hold(job, step)
            elif step.kind == "deadline":
                self._end(job, "Failed", "DeadlineExceeded", "Job was active longer than specified deadline")
                if pod:
                    self.api.remove("pods", pod)
                return
            else:
                pod = pod or self._create_pod(job, failed)
                if step.kind in {"unschedulable", "image", "secret"}:
                    self._keep_pending(pod, step)
                    continue
                ended = self._run(job, pod, step, failed)
                if ended is None:
                    return
                failed, pod = failed + ended, None
                if self._settle(job, step, failed):
                    return

    def _hold(self, job: Mapping[str, Any], step: Step) -> None:
        name = job["metadata"]["name"]
        if step.kind == "suspended":
            self.api.change(
                "jobs", name, conditions=[{"type": "Suspended", "status": "True", "reason": "JobSuspended"}]
            )
            step.last()
            self.api.change("jobs", name, conditions=[{"type": "Suspended", "status": "False"}])
            return
        self._tell(job, "FailedCreate", "Error creating: pods is forbidden: exceeded quota: gpus, requested: gpu=1")
        step.last()

    def _create_pod(self, job: Mapping[str, Any], number: int) -> str:
        name = f"{job['metadata']['name']}-{number:05x}"
        self.api.put(
            "pods",
            {
                "metadata": {
                    "name": name,
                    "labels": {
                        **job["spec"]["template"]["metadata"]["labels"],
                        "batch.kubernetes.io/job-name": job["metadata"]["name"],
                    },
                    "ownerReferences": [{"uid": job["metadata"]["uid"], "name": job["metadata"]["name"]}],
                    # Seconds alone would leave pods of one second without an order.
                    "creationTimestamp": datetime.now(UTC).isoformat(),
                },
                "spec": {"nodeName": "gpu-node-1"},
                "status": {"phase": "Pending"},
            },
        )
        self.api.change("jobs", job["metadata"]["name"], active=1, ready=0)
        return name

    def _keep_pending(self, pod: str, step: Step) -> None:
        if step.kind == "unschedulable":
            condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": NO_GPU}
            self.api.change("pods", pod, conditions=[condition])
            self._tell(self.api.objects["pods"][pod], "FailedScheduling", NO_GPU)
        else:
            waiting = {
                "image": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "nowhere/train:missing"'},
                "secret": {"reason": "CreateContainerConfigError", "message": 'secret "pipeline-storage" not found'},
            }[step.kind]
            self.api.change("pods", pod, containerStatuses=[{"name": "stage", "state": {"waiting": waiting}}])
        step.last()
        self.api.change("pods", pod, conditions=[{"type": "PodScheduled", "status": "True"}], containerStatuses=[])

    def _run(self, job: Mapping[str, Any], pod: str, step: Step, failed: int) -> int | None:
        """Run a container to its end; 1 when the pod failed, 0 when it did well, None when the Job was deleted."""
        name = job["metadata"]["name"]
        self.api.change("pods", pod, phase="Running")
        self.api.change("jobs", name, active=1, ready=1, failed=failed)
        self.api.logs[pod] = []
        for line in step.log:
            self.api.logs[pod].append((datetime.now(UTC).isoformat().replace("+00:00", "Z"), line))
        while step.kind == "hang" and name in self.api.objects["jobs"] and not self.api.stopping:
            time.sleep(0.02)
        step.last()
        if name not in self.api.objects["jobs"]:
            return None
        code = {"oom": 137, "evicted": 143}.get(step.kind, step.code)
        if code in {0, 4}:
            self.publish(job["metadata"]["labels"].get("alignment-pipeline/stage", "pipeline"), job)
        terminated = {
            "exitCode": code,
            "reason": "OOMKilled" if step.kind == "oom" else "Completed" if code == 0 else "Error",
            "message": "\n".join(step.log[-3:]),
            "finishedAt": now(),
        }
        status: dict[str, Any] = {
            "phase": "Succeeded" if code == 0 else "Failed",
            "containerStatuses": [{"name": "stage", "state": {"terminated": terminated}}],
        }
        if step.kind == "evicted":
            status |= {"reason": "Evicted", "message": "The node was low on resource: ephemeral-storage."}
            status["conditions"] = [{"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}]
        self.api.change("pods", pod, **status)
        return int(code != 0 and step.kind != "evicted")

    def _settle(self, job: Mapping[str, Any], step: Step, failed: int) -> bool:
        """The Job controller's answer to an ended pod; whether the Job has ended."""
        if step.kind == "evicted":
            return False
        if step.kind == "exit" and step.code == 0:
            self._end(job, "Complete", "CompletionsReached", "")
            return True
        self.api.change("jobs", job["metadata"]["name"], active=0, ready=0, failed=failed)
        if step.kind == "exit" and step.code in FINAL_CODES:
            message = f"Container stage for pod alignment/x failed with exit code {step.code} matching FailJob rule"
            self._end(job, "Failed", "PodFailurePolicy", message)
            return True
        if failed > BACKOFF_LIMIT:
            self._end(job, "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
            return True
        return False

    def _end(self, job: Mapping[str, Any], kind: str, reason: str, message: str) -> None:
        stage = job["metadata"]["labels"].get("alignment-pipeline/stage", "pipeline")
        self.ended_at[stage] = time.monotonic()
        condition = {"type": kind, "status": "True", "reason": reason, "message": message}
        self.api.change("jobs", job["metadata"]["name"], active=0, ready=0, conditions=[condition])

    def _tell(self, about: Mapping[str, Any], reason: str, message: str) -> None:
        metadata = about["metadata"]
        self.api.put(
            "events",
            {
                "metadata": {"name": f"{metadata['name']}.{reason}"},
                "type": "Warning",
                "reason": reason,
                "message": message,
                "lastTimestamp": now(),
                "involvedObject": {"name": metadata["name"], "uid": metadata["uid"]},
            },
        )
