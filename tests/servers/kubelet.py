"""Scheduler, kubelet and Job controller in one: acts out, for every Job that is created, the script of its stage.

The Job controller's part follows the templates: `podFailurePolicy` ignores disruptions and exit code 143, and fails the
Job on exit codes 2, 3 and 4; anything else counts against `backoffLimit` 2. Indexed Jobs are in `indexed_jobs.py`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from tests.servers.kubernetes_api import KubernetesApi, now
from tests.servers.stage_scripts import Script, Step
from tests.servers.stage_templates import BACKOFF_LIMIT, FINAL_CODES, TOLD_TO_STOP

NO_GPU = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. preemption: 0/1 nodes are available."


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
        scripts: Mapping[str, Script],
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
        script = self.scripts.get(stage_of(job), ())
        if self.is_suspended(job):
            self._keep_suspended(job)
        if job["spec"].get("completionMode") == "Indexed":
            from tests.servers.indexed_jobs import IndexedJob

            IndexedJob(self, job, script).play()
            return
        assert not isinstance(script, Mapping), "only an Indexed Job has indexes"
        name = job["metadata"]["name"]
        failed = 0
        pod: str | None = None
        for number, step in enumerate([*script, *([Step("exit")] * (BACKOFF_LIMIT + 1))]):
            if not self.is_there(job):
                return
            if step.kind in {"suspended", "quota"}:
                self._hold(job, step)
            elif step.kind == "deadline":
                self.end(job, "Failed", "DeadlineExceeded", "Job was active longer than specified deadline")
                if pod:
                    self.api.remove("pods", pod)
                return
            else:
                if pod is None:
                    pod = self.create_pod(job, f"{number:05x}")
                    self.api.change("jobs", name, active=1, ready=0)
                if step.kind in {"unschedulable", "image", "secret"}:
                    self.keep_pending(pod, step)
                    continue
                self.api.change("pods", pod, phase="Running")
                self.api.change("jobs", name, active=1, ready=1, failed=failed)
                code = self.run_container(job, pod, step)
                if code is None:
                    return
                if self.is_suspended(job):
                    self._keep_suspended(job, pod)
                failed, pod = failed + (code not in {0, TOLD_TO_STOP}), None
                if self._settle(job, code, failed):
                    return

    def _hold(self, job: Mapping[str, Any], step: Step) -> None:
        if step.kind == "suspended":
            self.tell_suspended(job, "True", "JobSuspended")
            step.last()
            self.tell_suspended(job, "False", "JobResumed")
            return
        self._tell(job, "FailedCreate", "Error creating: pods is forbidden: exceeded quota: gpus, requested: gpu=1")
        step.last()

    def _keep_suspended(self, job: Mapping[str, Any], pod: str = "") -> None:
        self.api.remove("pods", pod)
        self.tell_suspended(job, "True", "JobSuspended")
        while self.is_suspended(job):
            time.sleep(0.02)
        self.tell_suspended(job, "False", "JobResumed")

    def tell_suspended(self, job: Mapping[str, Any], status: str, reason: str) -> None:
        """Set the Job's condition; a suspended Job has no pods."""
        conditions = [{"type": "Suspended", "status": status, "reason": reason}]
        self.api.change("jobs", job["metadata"]["name"], active=0, ready=0, conditions=conditions)

    def is_there(self, job: Mapping[str, Any]) -> bool:
        """Whether the Job has not been deleted."""
        return job["metadata"]["name"] in self.api.objects["jobs"] and not self.api.stopping

    def is_suspended(self, job: Mapping[str, Any]) -> bool:
        """Whether someone has written `spec.suspend` of the Job."""
        current = self.api.objects["jobs"].get(job["metadata"]["name"])
        return current is not None and bool(current["spec"].get("suspend")) and not self.api.stopping

    def create_pod(self, job: Mapping[str, Any], suffix: str, **metadata: Any) -> str:
        """A pending pod of a Job; `metadata`: more labels and annotations."""
        name = f"{job['metadata']['name']}-{suffix}"
        template = job["spec"]["template"]
        self.api.put(
            "pods",
            {
                "metadata": {
                    "name": name,
                    "labels": {
                        **template["metadata"]["labels"],
                        "batch.kubernetes.io/job-name": job["metadata"]["name"],
                        **metadata.get("labels", {}),
                    },
                    "annotations": metadata.get("annotations", {}),
                    "ownerReferences": [{"uid": job["metadata"]["uid"], "name": job["metadata"]["name"]}],
                    # Seconds alone would leave pods of one second without an order.
                    "creationTimestamp": datetime.now(UTC).isoformat(),
                },
                "spec": {
                    "nodeName": "gpu-node-1",
                    "subdomain": template["spec"].get("subdomain"),
                    "hostname": metadata.get("hostname"),
                    "containers": template["spec"]["containers"],
                },
                "status": {"phase": "Pending"},
            },
        )
        return name

    def keep_pending(self, pod: str, step: Step) -> None:
        """Leave a pod waiting for as long as the step says."""
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

    def run_container(
        self,
        job: Mapping[str, Any],
        pod: str,
        step: Step,
        stopped: Callable[[], bool] = lambda: False,
        publish: bool = True,
    ) -> int | None:
        """Run a container to its end: its exit code, 143 when it was told to stop, None when the Job was deleted.

        Args:
            job: whose pod it is.
            pod: its name.
            step: what it does.
            stopped: whether the Job controller has told it to stop.
            publish: whether it leaves the stage's artifact when it ends well.
        """
        self.api.logs[pod] = []
        for line in step.log:
            self.api.logs[pod].append((datetime.now(UTC).isoformat().replace("+00:00", "Z"), line))
        began = time.monotonic()
        told = False
        while step.kind == "hang" or not step.is_over(began):
            time.sleep(0.02)
            told = stopped() or self.is_suspended(job)
            if told or not self.is_there(job):
                break
        if not self.is_there(job):
            return None
        code = TOLD_TO_STOP if told else {"oom": 137, "evicted": 143}.get(step.kind, step.code)
        if code in {0, 4} and publish:
            self.publish(stage_of(job), job)
        terminated = {
            "exitCode": code,
            "reason": "OOMKilled" if code == 137 else "Completed" if code == 0 else "Error",
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
        return code

    def _settle(self, job: Mapping[str, Any], code: int, failed: int) -> bool:
        """The Job controller's answer to an ended pod; whether the Job has ended."""
        if code == TOLD_TO_STOP:
            return False
        if code == 0:
            self.end(job, "Complete", "CompletionsReached", "")
            return True
        self.api.change("jobs", job["metadata"]["name"], active=0, ready=0, failed=failed)
        if code in FINAL_CODES:
            message = f"Container stage for pod alignment/x failed with exit code {code} matching FailJob rule"
            self.end(job, "Failed", "PodFailurePolicy", message)
            return True
        if failed > BACKOFF_LIMIT:
            self.end(job, "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
            return True
        return False

    def end(self, job: Mapping[str, Any], kind: str, reason: str, message: str) -> None:
        """Set the Job's last condition."""
        self.ended_at[stage_of(job)] = time.monotonic()
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


def stage_of(job: Mapping[str, Any]) -> str:
    """The stage a Job belongs to."""
    return str(job["metadata"]["labels"].get("alignment-pipeline/stage", "pipeline"))
