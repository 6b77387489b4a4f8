"""What must hold for Jobs, accounts, roles and every other object. Every function here is a rule (`rules`)."""

from __future__ import annotations

from collections.abc import Iterator

from k8s.rendering.fields import Resource
from pipeline_common.stages import STAGE_NAMES
from tests.manifests.pods import STAGE_OF, WITH_TOKEN, of_kind, pods


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


def everything_is_in_the_namespace(resources: list[Resource]) -> Iterator[str]:
    for resource in resources:
        if resource["kind"] == "Namespace":
            labels = resource["metadata"]["labels"]
            for mode in ("enforce", "warn", "audit"):
                if labels.get(f"pod-security.kubernetes.io/{mode}") != "restricted":
                    yield f"{mode}: {labels}"
        elif resource["metadata"].get("namespace") != "alignment":
            yield f"{resource['kind']} {resource['metadata']['name']}: {resource['metadata'].get('namespace')}"


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
