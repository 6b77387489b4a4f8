"""What must hold for the manifests, beyond what a schema can say. Each rule yields what breaks it.

A rule gets every object of one installation (services and pipeline together) and walks all of them, so that nothing
is exempt by not being listed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from k8s.rendering.fields import Resource
from k8s.rendering.kustomization import pod_template
from pipeline_common.stages import STAGE_NAMES, STAGES

Rule = Callable[[list[Resource]], Iterator[str]]
RULES: dict[str, Rule] = {}
# environment checks the GPU that train will use; prepare and analyze have no use for one.
STAGE_OF = {stage.name: stage for stage in STAGES}
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


def rule(function: Rule) -> Rule:
    RULES[function.__name__] = function
    return function


def broken_rules(resources: list[Resource]) -> dict[str, list[str]]:
    """Rule -> what breaks it, for the broken ones."""
    found = {name: list(check(resources)) for name, check in RULES.items()}
    return {name: problems for name, problems in found.items() if problems}


def of_kind(resources: list[Resource], kind: str) -> list[Resource]:
    return [resource for resource in resources if resource["kind"] == kind]


@rule
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


@rule
def containers_request_and_limit(resources: list[Resource]) -> Iterator[str]:
    for pod in pods(resources):
        for container in pod.containers:
            given = container.get("resources", {})
            for name in ("cpu", "memory", "ephemeral-storage"):
                low, high = (given.get(side, {}).get(name) for side in ("requests", "limits"))
                if low is None or high is None or not 0 < parse_quantity(low) <= parse_quantity(high):
                    yield f"{pod.name}/{container['name']}: {name} {low} of {high}"


@rule
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


@rule
def tokens_go_to_those_who_speak_to_the_api(resources: list[Resource]) -> Iterator[str]:
    for pod in pods(resources):
        if pod.spec.get("automountServiceAccountToken") is not (pod.name in WITH_TOKEN):
            yield f"{pod.name}: automountServiceAccountToken {pod.spec.get('automountServiceAccountToken')}"
        account = "stage" if pod.name in STAGE_NAMES else pod.name if pod.name in WITH_TOKEN else None
        if pod.spec.get("serviceAccountName") != account:
            yield f"{pod.name}: account {pod.spec.get('serviceAccountName')}"
        if pod.spec.get("enableServiceLinks") is not False:
            yield f"{pod.name}: service links"
    for account in of_kind(resources, "ServiceAccount"):
        if account.get("automountServiceAccountToken") is not False:
            yield f"account {account['metadata']['name']} mounts its token unasked"


@rule
def jobs_fail_retry_and_end_as_agreed(resources: list[Resource]) -> Iterator[str]:
    for pod in pods(resources):
        if (job := pod.job) is None:
            continue
        disrupted, final = {"type": "DisruptionTarget", "status": "True"}, [2, 3, 4]
        rules = job.get("podFailurePolicy", {}).get("rules", [])
        resumes = [] if pod.name == "dev-secret" else ["Ignore"]
        if [entry["action"] for entry in rules] != ["Ignore", *resumes, "FailJob"]:
            yield f"{pod.name}: failure rules {[entry['action'] for entry in rules]}"
            continue
        if rules[0].get("onPodConditions") != [disrupted]:
            yield f"{pod.name}: disruptions {rules[0]}"
        expected = [[143], final] if resumes else [[2, 3]]
        named = {"containerName": pod.containers[0]["name"], "operator": "In"}
        for entry, values in zip(rules[1:], expected, strict=True):
            if entry.get("onExitCodes") != {**named, "values": values}:
                yield f"{pod.name}: exit codes {entry}"
        if pod.spec.get("restartPolicy") != "Never":
            yield f"{pod.name}: restartPolicy {pod.spec.get('restartPolicy')}"
        if job.get("podReplacementPolicy") != "Failed":
            yield f"{pod.name}: podReplacementPolicy {job.get('podReplacementPolicy')}"
        if job.get("backoffLimit") != (2 if pod.name in STAGE_NAMES else 6):
            yield f"{pod.name}: backoffLimit {job.get('backoffLimit')}"
        if "suspend" in job:
            yield f"{pod.name}: suspend is Kueue's"
        if min(job.get(name, 0) for name in ("ttlSecondsAfterFinished", "activeDeadlineSeconds")) < 60:
            yield f"{pod.name}: never ends or never goes"


@rule
def pods_get_time_to_save_and_leave_a_reason(resources: list[Resource]) -> Iterator[str]:
    for pod in pods(resources):
        if pod.name != "bucket" and pod.spec.get("terminationGracePeriodSeconds", 30) < 120:
            yield f"{pod.name}: {pod.spec.get('terminationGracePeriodSeconds')} s to stop"
        for container in pod.containers:
            if container.get("terminationMessagePolicy") != "FallbackToLogsOnError":
                yield f"{pod.name}: its last lines are lost"


@rule
def templates_never_start_by_themselves(resources: list[Resource]) -> Iterator[str]:
    templates = of_kind(resources, "CronJob")
    if templates and [entry["metadata"]["name"] for entry in templates] != list(STAGE_NAMES):
        yield f"templates {[entry['metadata']['name'] for entry in templates]}"
    for entry in templates:
        spec = entry["spec"]
        if spec.get("suspend") is not True or spec.get("schedule") != "0 0 31 2 *":
            yield f"{entry['metadata']['name']}: {spec.get('suspend')} {spec.get('schedule')}"
        containers = spec["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        if [container["name"] for container in containers] != ["stage"]:
            yield f"{entry['metadata']['name']}: containers {[container['name'] for container in containers]}"
        if containers[0].get("args") != ["--config", "/config/config.yaml"] or "command" in containers[0]:
            yield f"{entry['metadata']['name']}: args {containers[0].get('args')}"


@rule
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


@rule
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


@rule
def services_are_probed(resources: list[Resource]) -> Iterator[str]:
    for pod in pods(resources):
        probes = {name for name in ("startupProbe", "readinessProbe", "livenessProbe") if name in pod.containers[0]}
        if len(probes) != (3 if pod.job is None else 0):
            yield f"{pod.name}: {sorted(probes)}"


@rule
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


@rule
def everything_is_labelled(resources: list[Resource]) -> Iterator[str]:
    fixed = {"app.kubernetes.io/name": "alignment-pipeline", "app.kubernetes.io/managed-by": "kustomize"}
    owners = [*resources, *(pod.template for pod in pods(resources))]
    owners += [entry["spec"]["jobTemplate"] for entry in of_kind(resources, "CronJob")]
    for owner in owners:
        labels = owner.get("metadata", {}).get("labels", {})
        if not fixed.items() <= labels.items() or "app.kubernetes.io/component" not in labels:
            yield f"{owner.get('kind', 'template')} {owner.get('metadata', {}).get('name')}: {labels}"
    for pod in pods(resources):
        if pod.template["metadata"]["labels"].get("app.kubernetes.io/component") != pod.name:
            yield f"{pod.name}: its pods are another component"


@rule
def everything_is_in_the_namespace(resources: list[Resource]) -> Iterator[str]:
    for resource in resources:
        if resource["kind"] == "Namespace":
            labels = resource["metadata"]["labels"]
            for mode in ("enforce", "warn", "audit"):
                if labels.get(f"pod-security.kubernetes.io/{mode}") != "restricted":
                    yield f"{mode}: {labels}"
        elif resource["metadata"].get("namespace") != "alignment":
            yield f"{resource['kind']} {resource['metadata']['name']}: {resource['metadata'].get('namespace')}"


@rule
def machines_of_a_stage_find_each_other(resources: list[Resource]) -> Iterator[str]:
    """A headless Service for each stage that may be spread, before the template that names it by `subdomain`."""
    templates = of_kind(resources, "CronJob")
    headless = [entry for entry in of_kind(resources, "Service") if entry["spec"].get("clusterIP") == "None"]
    spread = [entry["metadata"]["name"] for entry in templates if STAGE_OF[entry["metadata"]["name"]].needs_gpu]
    if [entry["metadata"]["name"] for entry in headless] != spread:
        yield f"headless Services {[entry['metadata']['name'] for entry in headless]}, expected {spread}"
    for entry in headless:
        name, spec = entry["metadata"]["name"], entry["spec"]
        if spec.get("publishNotReadyAddresses") is not True:
            yield f"{name}: machines that are not ready have no name"
        wanted = {"app.kubernetes.io/name": "alignment-pipeline", "app.kubernetes.io/component": name}
        if spec.get("selector") != wanted or set(spec) != {"clusterIP", "publishNotReadyAddresses", "selector"}:
            yield f"{name}: {spec}"


@rule
def roles_allow_little(resources: list[Resource]) -> Iterator[str]:
    allowed = {
        "pipeline": {
            "batch/cronjobs": {"get"},
            "batch/jobs": {"create", "get", "list", "watch", "delete"},
            "/pods": {"list"},
            "/pods/log": {"get"},
            "/events": {"list"},
        },
        "dev-secret": {"/secrets": {"create", "get"}},
    }
    for kind in ("ClusterRole", "ClusterRoleBinding"):
        for entry in of_kind(resources, kind):
            yield f"{kind} {entry['metadata']['name']}"
    for role in of_kind(resources, "Role"):
        name = role["metadata"]["name"]
        given: dict[str, set[str]] = {}
        for entry in role["rules"]:
            for group in entry["apiGroups"]:
                for kind in entry["resources"]:
                    given.setdefault(f"{group}/{kind}", set()).update(entry["verbs"])
                    reading_secrets = kind == "secrets" and "get" in entry["verbs"]
                    if (reading_secrets or kind == "cronjobs") and not entry.get("resourceNames"):
                        yield f"{name}: {kind} of any name"
        # No more than is used, and no less.
        if given != allowed.get(name):
            yield f"{name}: {given}"
    for binding in of_kind(resources, "RoleBinding"):
        name = binding["metadata"]["name"]
        if binding["roleRef"]["name"] != name or [entry["name"] for entry in binding["subjects"]] != [name]:
            yield f"binding {name}"


@rule
def no_object_holds_a_secret(resources: list[Resource]) -> Iterator[str]:
    for secret in of_kind(resources, "Secret"):
        for key, value in {**secret.get("data", {}), **secret.get("stringData", {})}.items():
            if "EDIT" not in value:
                yield f"Secret {secret['metadata']['name']}: {key}"
    for pod in pods(resources):
        for container in pod.containers:
            for entry in container.get("env", []):
                telling = any(word in entry["name"] for word in ("PASSWORD", "SECRET", "TOKEN", "KEY", "DATABASE_URL"))
                if telling and "value" in entry:
                    yield f"{pod.name}: {entry['name']} in plain text"
