"""The Jobs this project makes, from the templates that `k8s/pipeline.yaml` applies. Pure functions on API objects."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pipeline_common.errors import InputError

Json = dict[str, Any]
STAGE_CONTAINER: Final = "stage"
PIPELINE_CONTAINER: Final = "pipeline"
NAME_LABEL: Final = "app.kubernetes.io/name"
APP_NAME: Final = "alignment-pipeline"
COMPONENT_LABEL: Final = "app.kubernetes.io/component"
MANAGED_LABEL: Final = "app.kubernetes.io/managed-by"
RUN_LABEL: Final = "alignment-pipeline/run"
STAGE_LABEL: Final = "alignment-pipeline/stage"
RUN_ID_ANNOTATION: Final = "alignment-pipeline/run-id"
FINGERPRINT_ANNOTATION: Final = "alignment-pipeline/fingerprint"


@dataclass(frozen=True)
class Owner:
    """The pipeline Job a stage's Job belongs to: deleting it deletes them."""

    name: str
    uid: str

    @property
    def run8(self) -> str:
        """Eight characters that name the run in the cluster."""
        return self.uid[:8]

    def reference(self) -> Json:
        """`controller: false`: Kueue would count a controlled Job as a child, and the Job controller might adopt pods.

        `blockOwnerDeletion: false`: anything else asks for the right to set finalizers.
        """
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": self.name,
            "uid": self.uid,
            "controller": False,
            "blockOwnerDeletion": False,
        }


def stage_job_name(stage: str, run8: str) -> str:
    """Name of a stage's Job in a run."""
    return f"{stage}-{run8}"


def stage_job(
    template: Mapping[str, Any],
    stage: str,
    run8: str,
    arguments: Sequence[str] | None,
    *,
    extra_arguments: Sequence[str] = (),
    annotations: Mapping[str, str] | None = None,
    owner: Owner | None = None,
) -> Json:
    """A Job from a stage's CronJob.

    Args:
        template: the CronJob.
        stage: its stage.
        run8: names the run in the cluster.
        arguments: replace the container's; None keeps them.
        extra_arguments: come after them.
        annotations: added to the Job's and the pods'.
        owner: None for a Job of its own.

    Raises:
        InputError: the template has no container `stage`.
    """
    source = template["spec"]["jobTemplate"]
    spec = copy.deepcopy(source["spec"])
    labels = {NAME_LABEL: APP_NAME, COMPONENT_LABEL: stage, RUN_LABEL: run8, STAGE_LABEL: stage}
    metadata: Json = {
        "name": stage_job_name(stage, run8),
        "labels": {**source.get("metadata", {}).get("labels", {}), **labels, MANAGED_LABEL: "pipeline"},
        "annotations": {
            **source.get("metadata", {}).get("annotations", {}),
            "cronjob.kubernetes.io/instantiate": "manual",
            **(annotations or {}),
        },
    }
    if owner is not None:
        metadata["ownerReferences"] = [owner.reference()]
    pod = spec["template"].setdefault("metadata", {})
    pod["labels"] = {**pod.get("labels", {}), **labels, MANAGED_LABEL: "pipeline"}
    pod["annotations"] = {**pod.get("annotations", {}), **(annotations or {})}
    container = _container(spec, STAGE_CONTAINER, f"the CronJob {stage!r}")
    kept = container.get("args", []) if arguments is None else arguments
    container["args"] = [*kept, *extra_arguments]
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def pipeline_job(template: Mapping[str, Any], name: str, extra_arguments: Sequence[str]) -> Json:
    """A pipeline Job of another name from the one in `k8s/pipeline.yaml`: a new run.

    Raises:
        InputError: the template has no container `pipeline`.
    """
    job: Json = copy.deepcopy(dict(template))
    job.pop("status", None)
    job["metadata"] = {key: job["metadata"][key] for key in ("labels", "annotations") if key in job["metadata"]}
    job["metadata"]["name"] = name
    container = _container(job["spec"], PIPELINE_CONTAINER, "the Job `pipeline`")
    container["args"] = [*container.get("args", []), *extra_arguments]
    return job


def is_owned_by(job: Mapping[str, Any], owner: Owner) -> bool:
    """Whether a Job was made for this very pipeline Job."""
    return any(reference["uid"] == owner.uid for reference in job["metadata"].get("ownerReferences", []))


def condition(job: Mapping[str, Any] | None, kind: str) -> Mapping[str, Any] | None:
    """A condition of a Job or a pod that is true, or None."""
    found = ((job or {}).get("status") or {}).get("conditions") or []
    return next((entry for entry in found if entry["type"] == kind and entry["status"] == "True"), None)


def has_ended(job: Mapping[str, Any]) -> bool:
    """Whether a Job is complete or failed for good."""
    return any(condition(job, kind) is not None for kind in ("Complete", "Failed"))


def _container(spec: Json, name: str, where: str) -> Json:
    containers: list[Json] = spec["template"]["spec"]["containers"]
    for container in containers:
        if container["name"] == name:
            return container
    names = ", ".join(container["name"] for container in containers)
    raise InputError(f"{where} has no container {name!r}, only {names}; apply k8s/pipeline.yaml again")
