"""The pods of an installation, and which of them may have what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from k8s.rendering.fields import Resource
from k8s.rendering.kustomization import pod_template
from pipeline_common.stages import STAGES

STAGE_OF = {stage.name: stage for stage in STAGES}
# environment checks the GPU that train will use; prepare and analyze have no use for one.
GPU_STAGES = {"environment", "train", "evaluate"}
WITH_TOKEN = {"pipeline", "dev-secret"}
SERVICES = {"bucket", "database"}
SECRETS_OF = {
    "environment": ["pipeline-storage", "pipeline-database-owner", "pipeline-hub"],
    "prepare": ["pipeline-storage", "pipeline-hub"],
    "train": ["pipeline-storage"],
    "evaluate": ["pipeline-storage", "pipeline-judge"],
    "analyze": ["pipeline-storage"],
    "pipeline": ["pipeline-storage"],
    "dev-secret": [],
    "bucket": ["services-credentials"],
    "database": ["services-credentials"],
}


@dataclass(frozen=True)
class Pod:
    """A pod template and what makes pods of it."""

    owner: Resource
    template: Resource

    @property
    def name(self) -> str:
        return str(self.owner["metadata"]["name"])

    @property
    def spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = self.template["spec"]
        return spec

    @property
    def containers(self) -> list[dict[str, Any]]:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    @property
    def job(self) -> dict[str, Any] | None:
        """The Job's specification, None for a service."""
        if self.owner["kind"] == "CronJob":
            return dict(self.owner["spec"]["jobTemplate"]["spec"])
        return dict(self.owner["spec"]) if self.owner["kind"] == "Job" else None


def pods(resources: list[Resource]) -> list[Pod]:
    """Every pod template there is."""
    found = ((resource, pod_template(resource)) for resource in resources)
    return [Pod(resource, template) for resource, template in found if template is not None]


def of_kind(resources: list[Resource], kind: str) -> list[Resource]:
    return [resource for resource in resources if resource["kind"] == kind]
