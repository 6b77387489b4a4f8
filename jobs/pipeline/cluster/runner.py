"""Stages as Kubernetes Jobs, made from the CronJobs that serve as their templates."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final

from jobs.pipeline.cluster.api import ClusterApi, WatchExpiredError
from jobs.pipeline.cluster.machines import ONE_MACHINE, Machines, machine_count, spread_job
from jobs.pipeline.cluster.pods import BLOCKING, blocked_by, by_age, last_ended, seconds_since
from jobs.pipeline.cluster.reasons import is_suspended, observe_job
from jobs.pipeline.cluster.templates import (
    FINGERPRINT_ANNOTATION,
    RUN_ID_ANNOTATION,
    RUN_LABEL,
    STAGE_CONTAINER,
    STAGE_LABEL,
    Owner,
    has_ended,
    is_owned_by,
    stage_job,
    stage_job_name,
)
from jobs.pipeline.cluster.transport import ApiError
from jobs.pipeline.cluster.volumes import claims_of, tell_shared
from jobs.pipeline.machine import Failure, Observation, Phase
from pipeline_common.errors import InputError
from pipeline_common.logs import get_logger
from pipeline_common.stages import PlannedStage

Json = dict[str, Any]
# A watch ends after this long, and a list follows: what a broken connection swallowed is seen then at the latest.
WATCH_S: Final = 120.0
_FIRST_WATCH_S: Final = 4.0
# A registry may be away for a moment; a name that is wrong stays wrong.
GIVE_UP_STARTING_AFTER_S: Final = 600.0
_log = get_logger(__name__)


class KubernetesRunner:
    """Each stage in a Job of its own, owned by the pipeline's Job.

    Args:
        api: the cluster.
        owner: the pipeline's Job.
        run_id: the run's name in the results.
        arguments: the stages' command line.
        before_waiting: called whenever a wait begins.
        machines: what the stages that use a GPU run on.
        give_up_after_s: how long a pod may be unable to start for a reason that does not pass by itself.
    """

    def __init__(
        self,
        api: ClusterApi,
        owner: Owner,
        run_id: str,
        arguments: Sequence[str],
        before_waiting: Callable[[], None] = lambda: None,
        machines: Machines = ONE_MACHINE,
        give_up_after_s: float = GIVE_UP_STARTING_AFTER_S,
    ) -> None:
        self._api = api
        self._owner = owner
        self._run_id = run_id
        self._arguments = list(arguments)
        self._before_waiting = before_waiting
        self._machines = machines
        self._give_up_after_s = give_up_after_s
        self._selector = f"{RUN_LABEL}={owner.run8}"
        self._version = ""
        self._windows: dict[str, float] = {}
        self._last: dict[str, tuple[tuple[Any, ...], Observation]] = {}
        self._short_watches = 0

    def start(self, planned: PlannedStage) -> None:
        """See `Runner.start`.

        Raises:
            InputError: no template, a Job of another owner under our name, or a Job that the cluster refuses.
        """
        stage = planned.stage.name
        template = self._api.get("cronjobs", stage)
        if template is None:
            raise InputError(
                f"namespace {self._api.namespace} has no CronJob {stage!r}, the template of that stage's Job; "
                "kubectl apply -f k8s/pipeline.yaml makes all five"
            )
        annotations = {RUN_ID_ANNOTATION: self._run_id, FINGERPRINT_ANNOTATION: planned.fingerprint}
        job = stage_job(template, stage, self._owner.run8, self._arguments, annotations=annotations, owner=self._owner)
        job = spread_job(job, planned.stage, self._machines)
        name = job["metadata"]["name"]
        try:
            self._api.create("jobs", job)
        except ApiError as error:
            if error.status == HTTPStatus.CONFLICT:
                # Made by us before a kill, or by a request whose answer was lost: it is the one we want.
                self._mine(self._api.get("jobs", name))
                _log.info("%s: Job %s is there already and is adopted", stage, name)
                return
            if error.status in {HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY}:
                raise InputError(
                    f"the cluster refuses Job {name}: {error}; correct the CronJob {stage!r} and apply it again"
                ) from error
            raise
        _log.info("%s: Job %s created", stage, name)
        shared = tell_shared(machine_count(job), claims_of(job["spec"]["template"]["spec"]))
        if shared:
            _log.info("%s: %s", stage, shared)

    def observe(self, planned: PlannedStage, *, wait: bool) -> Observation:
        """See `Runner.observe`."""
        stage = planned.stage.name
        job = self._await_change(stage) if wait and self._version else self._list(stage)
        seen = self._describe(stage, job)
        known = self._last.get(stage)
        if not wait and known is None and job is not None:
            _log.info("%s: Job %s is adopted", stage, job["metadata"]["name"])
        if seen.waiting and (known is None or known[1].why != seen.why):
            _log.info("%s: %s", stage, seen.why)
            self._windows.pop(stage, None)
        self._last[stage] = (_counts(job), seen)
        return seen

    def logs(self, planned: PlannedStage, lines: int) -> tuple[str, ...]:
        """See `Runner.logs`."""
        known = self._last.get(planned.stage.name)
        failure = known[1].failure if known is not None else None
        name = failure.pod if failure is not None else None
        if name is None:
            pod = last_ended(self._pods(planned.stage.name))
            name = pod["metadata"]["name"] if pod is not None else None
        return self._api.read_log(name, STAGE_CONTAINER, tail_lines=lines) if name is not None else ()

    def cancel(self, planned: PlannedStage) -> None:
        """See `Runner.cancel`."""
        self._api.delete("jobs", stage_job_name(planned.stage.name, self._owner.run8))

    def _list(self, stage: str) -> Json | None:
        found = self._api.list("jobs", labelSelector=self._selector)
        self._version = found["metadata"]["resourceVersion"]
        name = stage_job_name(stage, self._owner.run8)
        job = next((item for item in found["items"] if item["metadata"]["name"] == name), None)
        return None if job is None else self._mine(job)

    def _await_change(self, stage: str) -> Json | None:
        """The Job when it has changed, or as it is after a while."""
        self._before_waiting()
        name = stage_job_name(stage, self._owner.run8)
        # Short after a change, when most happens and when a person may be looking.
        window = self._windows.get(stage, _FIRST_WATCH_S)
        began = time.monotonic()
        try:
            for kind, item in self._api.watch("jobs", self._version, window, labelSelector=self._selector):
                self._version = item["metadata"]["resourceVersion"]
                self._short_watches = 0
                if kind != "BOOKMARK" and item["metadata"]["name"] == name:
                    return None if kind == "DELETED" else self._mine(item)
        except WatchExpiredError as error:
            _log.debug("%s", error)
        if time.monotonic() - began < min(window, 1.0):
            # Something on the way closes watches at once: go on by listing, at a decent pace.
            self._short_watches += 1
            time.sleep(min(random.uniform(0.5, 1.0) * 0.25 * 2**self._short_watches, WATCH_S))
        else:
            self._windows[stage] = min(window * 2, WATCH_S)
        return self._list(stage)

    def _describe(self, stage: str, job: Json | None) -> Observation:
        if job is None:
            return observe_job(None)
        known = self._last.get(stage)
        ready = (job.get("status") or {}).get("ready")
        calm = ready and not has_ended(job) and not job["metadata"].get("deletionTimestamp") and not is_suspended(job)
        if calm and known is not None and known[0] == _counts(job) and known[1].phase is Phase.RUNNING:
            # It runs, as it did: nothing new is to be learnt from its pods.
            return known[1]
        if has_ended(job) and observe_job(job).phase is Phase.SUCCEEDED:
            return Observation(Phase.SUCCEEDED)
        pods = self._pods(stage)
        if observe_job(job).phase is Phase.FAILED:
            return self._describe_failure(stage, job, pods)
        seen = observe_job(job, pods, self._events(job, pods))
        return self._give_up(stage, job, pods) or seen

    def _describe_failure(self, stage: str, job: Json, pods: Sequence[Json]) -> Observation:
        seen = observe_job(job, pods)
        assert seen.failure is not None, "a failed Job has its failure"
        failure = seen.failure
        known = self._last.get(stage)
        if failure.condition == "DeadlineExceeded" and known is not None and known[1].phase is Phase.QUEUED:
            failure = replace(failure, reason=f"{failure.reason}; last seen {known[1].why}")
        return Observation(Phase.FAILED, failure.reason, replace(failure, stage=stage))

    def _give_up(self, stage: str, job: Json, pods: Sequence[Json]) -> Observation | None:
        """A stage that is stuck, in place of a wait that cannot end well."""
        now = datetime.now(UTC)
        for pod in by_age(pods)[::-1]:
            blocked = blocked_by(pod)
            if blocked is None or seconds_since(pod["metadata"]["creationTimestamp"], now) < self._give_up_after_s:
                continue
            reason = (
                f"could not start within {self._give_up_after_s:.0f} s: {BLOCKING[blocked[0]]} "
                f"({blocked[0]}: {blocked[1]})"
            )
            names = {"job": job["metadata"]["name"], "pod": pod["metadata"]["name"]}
            return Observation(Phase.STUCK, reason, Failure(stage, reason, condition=blocked[0], **names))
        return None

    def _pods(self, stage: str) -> list[Json]:
        selector = f"{self._selector},{STAGE_LABEL}={stage}"
        items: list[Json] = self._api.list("pods", labelSelector=selector)["items"]
        return items

    def _events(self, job: Json, pods: Sequence[Json]) -> list[Json]:
        """Events about what holds the stage up: its newest pod, or the Job that has none."""
        pending = [pod for pod in by_age(pods) if (pod.get("status") or {}).get("phase") in {"Pending", None}]
        if pods and not pending:
            return []
        about = pending[-1] if pending else job
        uid = about["metadata"]["uid"]
        items: list[Json] = self._api.list("events", fieldSelector=f"involvedObject.uid={uid}")["items"]
        return items

    def _mine(self, job: Json | None) -> Json:
        """The Job, which must belong to this pipeline.

        Raises:
            InputError: it belongs to something else.
        """
        if job is None:
            raise InputError("a Job that was just there is gone; something deletes the pipeline's Jobs")
        if not is_owned_by(job, self._owner):
            raise InputError(
                f"Job {job['metadata']['name']} has this run's name, but was not made by Job {self._owner.name}; "
                f"delete it (kubectl delete job -n {self._api.namespace} {job['metadata']['name']}), then start again"
            )
        return job


def _counts(job: Json | None) -> tuple[Any, ...]:
    """What changes in a Job's status when one of its machines comes, fails or is done."""
    status = (job or {}).get("status") or {}
    return tuple(status.get(name) or 0 for name in ("failed", "ready", "completedIndexes"))


def refuse_second_run(api: ClusterApi, owner: Owner, run_id: str) -> None:
    """Two pipelines that make the same run would write the same artifacts and rows.

    Raises:
        InputError: another pipeline Job has unfinished stages of this run.
    """
    for job in api.list("jobs", labelSelector=STAGE_LABEL)["items"]:
        metadata = job["metadata"]
        other = metadata["labels"].get(RUN_LABEL)
        same_run = metadata.get("annotations", {}).get(RUN_ID_ANNOTATION) == run_id
        if same_run and other != owner.run8 and not has_ended(job) and not metadata.get("deletionTimestamp"):
            owners = ", ".join(entry["name"] for entry in metadata.get("ownerReferences", [])) or "nobody"
            raise InputError(
                f"run {run_id} is being made already: Job {metadata['name']}, which belongs to {owners}, is not "
                "finished. Wait for it, cancel it (make cancel), or give this run another name (RUN=... or --run-id)"
            )
