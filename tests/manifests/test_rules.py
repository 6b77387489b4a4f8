"""The rules hold for every installation, saw every pod, and each can fail."""

from __future__ import annotations

from collections import Counter

import pytest

from k8s.rendering.kustomization import build
from tests.manifests.installations import (
    INSTALLATIONS,
    PODS,
    SERVICE_PODS,
    cluster,
    container_of,
    job_of,
    pod_of,
    role_of,
)
from tests.manifests.pods import pods
from tests.manifests.rules import RULES, broken_rules
from tests.manifests.tree import OVERLAYS, built, choices, make_choice, named


@pytest.mark.parametrize("name", INSTALLATIONS)
def test_an_installation_breaks_no_rule(name):
    resources = built(*INSTALLATIONS[name])
    services = [] if name.startswith("own") else SERVICE_PODS
    assert Counter(pod.name for pod in pods(resources)) == Counter([*PODS, *services])
    assert broken_rules(resources) == {}


def test_every_overlay_is_part_of_an_installation():
    assert {part for parts in INSTALLATIONS.values() for part in parts} == set(OVERLAYS)


def test_every_choice_of_components_breaks_no_rule(tmp_path):
    """Without `images` a template names the build's own image, untagged: that is what the rule is for."""
    seen = 0
    for name, (base, components) in choices().items():
        resources = build(make_choice(tmp_path, base, components))
        broken = broken_rules(resources)
        complete = {"images", "image-digest"} <= set(components)
        if base == "namespace":
            complete = "images" in components or "dev-secret" not in components
        assert set(broken) == (set() if complete else {"images_are_exact"}), (name, broken)
        seen += len(pods(resources))
    # 16 choices of 6 pods, and each service in half of 32
    assert seen == 16 * 6 + 3 * 16


def put(place, **values):
    place.update(values)


BREAKS = {
    "pods_meet_the_restricted_standard": [
        lambda all_: put(pod_of(all_, "analyze").spec["securityContext"], runAsNonRoot=False),
        lambda all_: put(pod_of(all_, "bucket").spec["securityContext"], runAsUser=1000),
        lambda all_: pod_of(all_, "database").spec["securityContext"].pop("seccompProfile"),
        lambda all_: put(pod_of(all_, "train").spec, hostNetwork=True),
        lambda all_: pod_of(all_, "train").spec["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),
        lambda all_: container_of(all_, "pipeline").pop("securityContext"),
        lambda all_: put(container_of(all_, "evaluate")["securityContext"], readOnlyRootFilesystem=False),
        lambda all_: pod_of(all_, "train").spec.update(initContainers=[{"name": "i", "image": "x:1"}]),
    ],
    "containers_request_and_limit": [
        lambda all_: container_of(all_, "database")["resources"]["limits"].pop("memory"),
        lambda all_: put(container_of(all_, "train")["resources"]["requests"], memory="96Gi"),
        lambda all_: put(container_of(all_, "prepare")["resources"]["requests"], cpu="0"),
    ],
    "gpus_go_to_the_stages_that_use_them": [
        lambda all_: put(container_of(all_, "prepare")["resources"]["limits"], **{"nvidia.com/gpu": "1"}),
        lambda all_: container_of(all_, "train")["resources"]["limits"].pop("nvidia.com/gpu"),
        lambda all_: pod_of(all_, "train").spec.pop("tolerations"),
        lambda all_: put(pod_of(all_, "analyze").spec, tolerations=pod_of(all_, "train").spec["tolerations"]),
    ],
    "tokens_go_to_those_who_speak_to_the_api": [
        lambda all_: pod_of(all_, "train").spec.pop("automountServiceAccountToken"),
        lambda all_: put(pod_of(all_, "bucket").spec, automountServiceAccountToken=True),
        lambda all_: put(pod_of(all_, "evaluate").spec, serviceAccountName="pipeline"),
        lambda all_: named(all_, "ServiceAccount", "stage").pop("automountServiceAccountToken"),
        lambda all_: pod_of(all_, "database").spec.pop("enableServiceLinks"),
    ],
    "jobs_fail_retry_and_end_as_agreed": [
        lambda all_: job_of(all_, "train")["podFailurePolicy"]["rules"].reverse(),
        lambda all_: job_of(all_, "train")["podFailurePolicy"]["rules"][0]["onPodConditions"][0].pop("status"),
        lambda all_: put(job_of(all_, "train")["podFailurePolicy"]["rules"][2]["onExitCodes"], values=[1, 2, 3, 4]),
        lambda all_: put(job_of(all_, "train")["podFailurePolicy"]["rules"][1]["onExitCodes"], values=[137, 143]),
        lambda all_: job_of(all_, "evaluate")["podFailurePolicy"]["rules"].pop(1),
        lambda all_: put(job_of(all_, "analyze")["template"]["spec"], restartPolicy="OnFailure"),
        lambda all_: job_of(all_, "prepare").pop("podReplacementPolicy"),
        lambda all_: put(job_of(all_, "prepare"), backoffLimit=0),
        lambda all_: job_of(all_, "evaluate").pop("activeDeadlineSeconds"),
        lambda all_: named(all_, "Job", "pipeline")["spec"].pop("ttlSecondsAfterFinished"),
        lambda all_: put(job_of(all_, "evaluate"), suspend=True),
    ],
    "pods_get_time_to_save_and_leave_a_reason": [
        lambda all_: put(pod_of(all_, "train").spec, terminationGracePeriodSeconds=30),
        lambda all_: pod_of(all_, "pipeline").spec.pop("terminationGracePeriodSeconds"),
        lambda all_: container_of(all_, "bucket").pop("terminationMessagePolicy"),
    ],
    "templates_never_start_by_themselves": [
        lambda all_: put(named(all_, "CronJob", "train")["spec"], suspend=False),
        lambda all_: put(named(all_, "CronJob", "train")["spec"], schedule="0 0 30 2 *"),
        lambda all_: all_.remove(named(all_, "CronJob", "prepare")),
        lambda all_: container_of(all_, "prepare").update(args=["--config", "tiny"]),
        lambda all_: container_of(all_, "prepare").update(name="prepare"),
    ],
    "pods_write_where_they_may": [
        lambda all_: container_of(all_, "train")["volumeMounts"].pop(),
        lambda all_: container_of(all_, "train")["volumeMounts"][0].pop("readOnly"),
        lambda all_: pod_of(all_, "train").spec["volumes"][4]["emptyDir"].pop("medium"),
        lambda all_: pod_of(all_, "evaluate").spec["volumes"][4]["emptyDir"].update(sizeLimit="40Gi"),
        lambda all_: pod_of(all_, "evaluate").spec["volumes"][3]["emptyDir"].pop("sizeLimit"),
        lambda all_: put(pod_of(all_, "evaluate").spec["volumes"][2], persistentVolumeClaim={"claimName": "bucket"}),
        lambda all_: container_of(all_, "database")["volumeMounts"].pop(3),
    ],
    "secrets_are_given_by_the_minimum": [
        lambda all_: container_of(all_, "analyze")["envFrom"].append({"secretRef": {"name": "pipeline-hub"}}),
        lambda all_: container_of(all_, "environment")["envFrom"].reverse(),
        lambda all_: container_of(all_, "environment")["envFrom"][2]["secretRef"].pop("optional"),
        lambda all_: put(container_of(all_, "train")["envFrom"][0]["secretRef"], optional=True),
    ],
    "services_are_probed": [
        lambda all_: container_of(all_, "database").pop("startupProbe"),
        lambda all_: put(container_of(all_, "train"), livenessProbe={"exec": {"command": ["true"]}}),
    ],
    "images_are_exact": [
        lambda all_: put(container_of(all_, "bucket"), image="minio"),
        lambda all_: put(container_of(all_, "database"), image="postgres:latest"),
        lambda all_: put(container_of(all_, "train"), image=container_of(all_, "evaluate")["image"]),
        lambda all_: put(container_of(all_, "train")["env"][0], value="unpinned"),
        lambda all_: put(container_of(all_, "train"), imagePullPolicy="Always"),
    ],
    "everything_is_labelled": [
        lambda all_: named(all_, "Service", "bucket")["metadata"].pop("labels"),
        lambda all_: job_of(all_, "train")["template"]["metadata"]["labels"].pop("app.kubernetes.io/component"),
        lambda all_: named(all_, "CronJob", "train")["spec"]["jobTemplate"].pop("metadata"),
    ],
    "everything_is_in_the_namespace": [
        lambda all_: named(all_, "Role", "pipeline")["metadata"].pop("namespace"),
        lambda all_: put(
            named(all_, "Namespace", "alignment")["metadata"]["labels"],
            **{"pod-security.kubernetes.io/enforce": "baseline"},
        ),
    ],
    "machines_of_a_stage_find_each_other": [
        lambda all_: all_.remove(named(all_, "Service", "evaluate")),
        lambda all_: named(all_, "Service", "train")["spec"].pop("clusterIP"),
        lambda all_: named(all_, "Service", "train")["spec"].pop("publishNotReadyAddresses"),
        lambda all_: put(named(all_, "Service", "train")["spec"]["selector"], **{"app.kubernetes.io/component": "x"}),
        lambda all_: put(named(all_, "Service", "train")["spec"], ports=[{"port": 29500}]),
        lambda all_: put(named(all_, "Service", "bucket")["spec"], clusterIP="None"),
    ],
    "roles_allow_little": [
        lambda all_: role_of(all_, "pipeline")[1]["verbs"].append("patch"),
        lambda all_: role_of(all_, "pipeline")[2]["verbs"].append("delete"),
        lambda all_: role_of(all_, "pipeline").pop(),
        lambda all_: role_of(all_, "pipeline")[0].pop("resourceNames"),
        lambda all_: role_of(all_, "dev-secret")[1].pop("resourceNames"),
        lambda all_: role_of(all_, "pipeline").append({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}),
        lambda all_: put(named(all_, "RoleBinding", "pipeline")["subjects"][0], name="stage"),
        lambda all_: all_.append({"kind": "ClusterRole", "metadata": {"name": "x"}, "rules": []}),
    ],
    "no_object_holds_a_secret": [
        lambda all_: all_.append({"kind": "Secret", "metadata": {"name": "x"}, "stringData": {"a": "hunter2"}}),
        lambda all_: container_of(all_, "train")["env"].append({"name": "HF_TOKEN", "value": "hf_x"}),
    ],
}


def test_every_rule_is_broken_on_purpose():
    assert BREAKS.keys() == RULES.keys()
    assert len(RULES) == 16


@pytest.mark.parametrize(("name", "change"), [(name, change) for name, changes in BREAKS.items() for change in changes])
def test_the_rule_sees_it_broken(name, change):
    resources = cluster()
    change(resources)
    if name == "pods_meet_the_restricted_standard" and any(pod.spec.get("initContainers") for pod in pods(resources)):
        # A container without anything breaks everything; this rule is among them.
        found = {rule for rule in ("pods_meet_the_restricted_standard",) if list(RULES[rule](resources))}
    else:
        found = set(broken_rules(resources))
    assert name in found
