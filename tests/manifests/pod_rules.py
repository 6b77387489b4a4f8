"""What must hold for each pod and its containers. Every function here is a rule (`rules`)."""

from __future__ import annotations

from collections.abc import Iterator

from kubernetes.utils.quantity import parse_quantity

from k8s.rendering.fields import Resource
from pipeline_common.stages import STAGE_NAMES
from tests.manifests.pods import GPU_STAGES, SECRETS_OF, SERVICES, pods


def pods_meet_the_restricted_standard(resources: list[Resource]) -> Iterator[str]:
    for pod in pods(resources):
        context = pod.spec.get("securityContext", {})
        if context.get("runAsNonRoot") is not True or not context.get("runAsUser") or not context.get("fsGroup"):
            yield f"{pod.name}: runs as {context.get('runAsUser')}"
        # The image of the database knows one user; the others are above any a node has.
        if pod.name != "database" and context.get("runAsUser", 0) <= 10000:
            yield f"{pod.name}: uid {context.get('runAsUser')} may be one of the node's"
        if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{pod.name}: seccomp {context.get('seccompProfile')}"
        if any(pod.spec.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")):
            yield f"{pod.name}: shares the node's namespaces"
        for volume in pod.spec.get("volumes", []):
            if not set(volume) - {"name"} <= {"configMap", "emptyDir", "persistentVolumeClaim"}:
                yield f"{pod.name}: volume {volume}"
        for container in pod.containers:
            context = container.get("securityContext", {})
            wanted = {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            if context != wanted:
                yield f"{pod.name}/{container['name']}: {context}"


def containers_request_and_limit(resources: list[Resource]) -> Iterator[str]:
    for pod in pods(resources):
        for container in pod.containers:
            given = container.get("resources", {})
            for name in ("cpu", "memory", "ephemeral-storage"):
                low, high = (given.get(side, {}).get(name) for side in ("requests", "limits"))
                if low is None or high is None or not 0 < parse_quantity(low) <= parse_quantity(high):
                    yield f"{pod.name}/{container['name']}: {name} {low} of {high}"


def gpus_go_to_the_stages_that_use_them(resources: list[Resource]) -> Iterator[str]:
    asking = {
        pod.name
        for pod in pods(resources)
        for container in pod.containers
        if "nvidia.com/gpu" in {**container["resources"]["limits"], **container["resources"]["requests"]}
    }
    tolerating = {
        pod.name
        for pod in pods(resources)
        if {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod.spec.get("tolerations", [])
    }
    if asking not in (set(), GPU_STAGES):
        yield f"a GPU is asked for by {sorted(asking)}"
    if tolerating != asking:
        yield f"{sorted(asking)} ask for a GPU, {sorted(tolerating)} tolerate its node"


def pods_get_time_to_save_and_leave_a_reason(resources: list[Resource]) -> Iterator[str]:
    for pod in pods(resources):
        if pod.name != "bucket" and pod.spec.get("terminationGracePeriodSeconds", 30) < 120:
            yield f"{pod.name}: {pod.spec.get('terminationGracePeriodSeconds')} s to stop"
        for container in pod.containers:
            if container.get("terminationMessagePolicy") != "FallbackToLogsOnError":
                yield f"{pod.name}: its last lines are lost"


def pods_write_where_they_may(resources: list[Resource]) -> Iterator[str]:
    for pod in pods(resources):
        volumes = {volume["name"]: volume for volume in pod.spec.get("volumes", [])}
        mounts = {mount["mountPath"]: mount for mount in pod.containers[0].get("volumeMounts", [])}
        if pod.name in STAGE_NAMES:
            writable = {path for path, mount in mounts.items() if not mount.get("readOnly")}
            if writable != {"/data", "/model", "/tmp", "/dev/shm"}:
                yield f"{pod.name}: writes to {sorted(writable)}"
                continue
            claims = {path: volumes[mounts[path]["name"]].get("persistentVolumeClaim") for path in ("/data", "/model")}
            if claims != {"/data": {"claimName": "pipeline-data"}, "/model": {"claimName": "pipeline-model"}}:
                yield f"{pod.name}: keeps {claims}"
            shared = volumes[mounts["/dev/shm"]["name"]].get("emptyDir", {})
            limit = parse_quantity(pod.containers[0]["resources"]["limits"]["memory"])
            if shared.get("medium") != "Memory" or not parse_quantity(shared.get("sizeLimit", "1Ei")) <= limit / 2:
                yield f"{pod.name}: /dev/shm {shared}"
            environment = {entry["name"]: entry.get("value") for entry in pod.containers[0]["env"]}
            if (environment.get("HF_HOME"), environment.get("HOME")) != ("/model/hub", "/tmp"):
                yield f"{pod.name}: caches in {environment.get('HF_HOME')}, {environment.get('HOME')}"
        if "/tmp" not in mounts:
            yield f"{pod.name}: no /tmp beside a read-only root"
        for name, volume in volumes.items():
            if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
                yield f"{pod.name}: {name} may fill the node"


def secrets_are_given_by_the_minimum(resources: list[Resource]) -> Iterator[str]:
    for pod in pods(resources):
        given = []
        for container in pod.containers:
            given += [entry["secretRef"] for entry in container.get("envFrom", [])]
            given += [
                entry["valueFrom"]["secretKeyRef"]
                for entry in container.get("env", [])
                if "secretKeyRef" in entry.get("valueFrom", {})
            ]
        names = list(dict.fromkeys(entry["name"] for entry in given))
        if names != SECRETS_OF[pod.name]:
            yield f"{pod.name}: reads {names}"
        may_lack = {"pipeline-database-owner", "pipeline-hub", "pipeline-judge"}
        if any(bool(entry.get("optional")) != (entry["name"] in may_lack) for entry in given):
            yield f"{pod.name}: {given}"


def services_are_probed(resources: list[Resource]) -> Iterator[str]:
    for pod in pods(resources):
        probes = {name for name in ("startupProbe", "readinessProbe", "livenessProbe") if name in pod.containers[0]}
        if len(probes) != (3 if pod.job is None else 0):
            yield f"{pod.name}: {sorted(probes)}"


def images_are_exact(resources: list[Resource]) -> Iterator[str]:
    for pod in pods(resources):
        for container in pod.containers:
            name, _, tag = container["image"].rpartition("/")[2].partition("@")[0].partition(":")
            pinned = "@sha256:" in container["image"]
            if not pinned and tag in {"", "latest"}:
                yield f"{pod.name}: image {container['image']}"
            if container.get("imagePullPolicy") != "IfNotPresent":
                yield f"{pod.name}: pulls {container.get('imagePullPolicy')}"
            told = [entry["value"] for entry in container.get("env", []) if entry["name"] == "IMAGE_DIGEST"]
            if pod.name in {*STAGE_NAMES, "pipeline"} and told != [container["image"]]:
                yield f"{pod.name}: provenance says {told}"
            own = {"pipeline": "orchestrator", "dev-secret": "orchestrator"}.get(pod.name, pod.name)
            if pod.name not in SERVICES and name != f"alignment-pipeline-{own}":
                yield f"{pod.name}: runs the image {name}"
