"""The Job controller's part for Indexed Jobs: a pod per index, each with its own attempts, all at once.

As of Kubernetes 1.31 and later with `backoffLimitPerIndex`, `maxFailedIndexes` 0 and the templates' `podFailurePolicy`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from itertools import groupby
from typing import Any

from tests.servers.kubelet import Kubelet
from tests.servers.stage_scripts import Script, Step
from tests.servers.stage_templates import FINAL_CODES, TOLD_TO_STOP

INDEX = "batch.kubernetes.io/job-completion-index"
FAILURES = "batch.kubernetes.io/job-index-failure-count"


class IndexedJob:
    """Acts out one Indexed Job.

    Args:
        kubelet: runs the containers.
        job: as it was created.
        script: steps of every index, or index -> steps; an index without any ends well.
    """

    def __init__(self, kubelet: Kubelet, job: Mapping[str, Any], script: Script) -> None:
        self.kubelet, self.job, self.name = kubelet, job, job["metadata"]["name"]
        self.count = int(job["spec"]["completions"])
        assert job["spec"]["parallelism"] == self.count, "the machines of a stage run at once"
        self.limit = int(job["spec"]["backoffLimitPerIndex"])
        self.scripts = {
            index: list(script.get(index, ()) if isinstance(script, Mapping) else script) for index in range(self.count)
        }
        self.lock = threading.RLock()
        self.running: set[int] = set()
        self.active: set[int] = set()
        self.completed: set[int] = set()
        self.failed = 0
        self.suspended = False
        self.over = threading.Event()

    def play(self) -> None:
        """Every index in a thread."""
        for index in range(self.count):
            threading.Thread(target=self._play_index, args=(index,), daemon=True).start()

    def _play_index(self, index: int) -> None:
        failures = 0
        pod: str | None = None
        for number, step in enumerate([*self.scripts[index], *([Step("exit")] * (self.limit + 1))]):
            if self.over.is_set() or not self.kubelet.is_there(self.job):
                return
            if pod is None:
                pod = self._create_pod(index, number, failures)
            if step.kind in {"unschedulable", "image", "secret"}:
                self.kubelet.keep_pending(pod, step)
                continue
            self.kubelet.api.change("pods", pod, phase="Running")
            self._report(starts=index)
            code = self.kubelet.run_container(self.job, pod, step, self.over.is_set, publish=index == 0)
            self._report(ends=index)
            if code is None or self.over.is_set():
                return
            if self.kubelet.is_suspended(self.job):
                self._keep_suspended(pod)
            failures, pod = failures + (code not in {0, TOLD_TO_STOP}), None
            if self._settle(index, code, failures):
                return

    def _create_pod(self, index: int, number: int, failures: int) -> str:
        with self.lock:
            self.active.add(index)
        pod = self.kubelet.create_pod(
            self.job,
            f"{index}-{number:05x}",
            labels={INDEX: str(index)},
            annotations={INDEX: str(index), FAILURES: str(failures)},
            hostname=f"{self.name}-{index}",
        )
        self._report()
        return pod

    def _report(self, *, starts: int | None = None, ends: int | None = None) -> None:
        with self.lock:
            if starts is not None:
                self.running.add(starts)
            if ends is not None:
                self.running.discard(ends)
                self.active.discard(ends)
            if not self.over.is_set():
                self.kubelet.api.change("jobs", self.name, active=len(self.active), ready=len(self.running))

    def _keep_suspended(self, pod: str) -> None:
        self.kubelet.api.remove("pods", pod)
        with self.lock:
            if not self.suspended:
                self.suspended = True
                self.kubelet.tell_suspended(self.job, "True", "JobSuspended")
        while self.kubelet.is_suspended(self.job):
            time.sleep(0.02)
        with self.lock:
            if self.suspended:
                self.suspended = False
                self.kubelet.tell_suspended(self.job, "False", "JobResumed")

    def _settle(self, index: int, code: int, failures: int) -> bool:
        """The answer to an ended pod; whether this index is over."""
        with self.lock:
            if self.over.is_set():
                return True
            if code == 0:
                self.completed.add(index)
                found = write_indexes(self.completed)
                self.kubelet.api.change("jobs", self.name, completedIndexes=found, succeeded=len(self.completed))
                if len(self.completed) == self.count:
                    self._end("Complete", "CompletionsReached", "Reached expected number of succeeded pods")
                return True
            if code == TOLD_TO_STOP:
                return False
            self.failed += 1
            self.kubelet.api.change("jobs", self.name, failed=self.failed)
            if code in FINAL_CODES:
                told = (
                    f"Container stage for pod alignment/x failed with exit code {code} matching FailJob rule at index 2"
                )
                self._end("Failed", "PodFailurePolicy", told)
                return True
            if failures > self.limit:
                self.kubelet.api.change("jobs", self.name, failedIndexes=str(index))
                told = "Job has exceeded the specified maximal number of failed indexes"
                self._end("Failed", "MaxFailedIndexesExceeded", told)
                return True
            return False

    def _end(self, kind: str, reason: str, message: str) -> None:
        """The other machines are told to stop, and the Job ends when they have."""
        self.over.set()
        if kind == "Failed":
            conditions = [{"type": "FailureTarget", "status": "True", "reason": reason, "message": message}]
            self.kubelet.api.change("jobs", self.name, conditions=conditions)
            threading.Timer(0.2, self.kubelet.end, (self.job, kind, reason, message)).start()
        else:
            self.kubelet.end(self.job, kind, reason, message)


def write_indexes(indexes: set[int]) -> str:
    """As the API writes them: `0,2-4`; two neighbours are listed, `0,1` (seen in Kubernetes 1.36)."""
    parts = []
    for _, group in groupby(enumerate(sorted(indexes)), key=lambda pair: pair[1] - pair[0]):
        run = [index for _, index in group]
        parts += [f"{run[0]}-{run[-1]}"] if len(run) > 2 else map(str, run)
    return ",".join(parts)
