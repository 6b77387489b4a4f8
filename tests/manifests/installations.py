"""What a person applies together, and the parts of it that tests look at."""

from __future__ import annotations

from pipeline_common.stages import STAGE_NAMES
from tests.manifests.pods import pods
from tests.manifests.tree import built, named

# What a person applies together: services, then the pipeline.
INSTALLATIONS = {
    "cluster": ("overlays/cluster/services", "overlays/cluster"),
    "own bucket and database": ("overlays/cluster/own-services", "overlays/cluster"),
    "kind with a GPU": ("overlays/local/services", "overlays/local"),
    "kind without a GPU": ("overlays/local/services", "overlays/local/cpu"),
}
PODS = [*STAGE_NAMES, "pipeline"]
SERVICE_PODS = ["bucket", "database", "dev-secret"]


def cluster():
    return built(*INSTALLATIONS["cluster"])


def job_of(resources, name):
    return named(resources, "CronJob", name)["spec"]["jobTemplate"]["spec"]


def pod_of(resources, name):
    return next(pod for pod in pods(resources) if pod.name == name)


def container_of(resources, name):
    return pod_of(resources, name).containers[0]


def role_of(resources, name):
    return named(resources, "Role", name)["rules"]
