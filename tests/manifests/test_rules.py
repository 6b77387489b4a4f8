"""The rules hold for every installation, saw every pod, and each can fail."""

from __future__ import annotations

import re
from collections import Counter

import pytest
import yaml

from k8s.rendering.files import IMAGES, RENDERED, ROOT
from k8s.rendering.kustomization import build, read_kustomization
from pipeline_common.config import load_config
from pipeline_common.stages import REPOSITORY, STAGE_NAMES, STAGES
from tests.manifests.rules import GPU_STAGES, RULES, broken_rules, of_kind, pods
from tests.manifests.tree import OVERLAYS, built, choices, make_choice, named

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


def job_of(resources, name):
    return named(resources, "CronJob", name)["spec"]["jobTemplate"]["spec"]


def pod_of(resources, name):
    return next(pod for pod in pods(resources) if pod.name == name)


def container_of(resources, name):
    return pod_of(resources, name).containers[0]


def role_of(resources, name):
    return named(resources, "Role", name)["rules"]


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


def test_gpu_stages_are_those_of_the_plan_and_the_check_before_them():
    assert {stage.name for stage in STAGES if stage.needs_gpu} | {"environment"} == GPU_STAGES
    with_gpu = {
        name: [pod.name for pod in pods(built(name)) if "nvidia.com/gpu" in pod.containers[0]["resources"]["limits"]]
        for name in OVERLAYS
    }
    assert {name: set(found) for name, found in with_gpu.items() if found} == {
        "overlays/cluster": GPU_STAGES,
        "overlays/local": GPU_STAGES,
    }


def test_the_memory_of_a_pod_is_what_its_profile_asks_for():
    """environment compares the container's limits with the profile: it must not fail where it is meant to run."""
    from kubernetes.utils.quantity import parse_quantity

    for overlays in INSTALLATIONS.values():
        resources = built(*overlays)
        needs = config_of(resources).environment
        limits = container_of(resources, "environment")["resources"]["limits"]
        assert parse_quantity(limits["memory"]) >= needs.min_memory_gib * 2**30
        assert ("nvidia.com/gpu" in limits) is (needs.min_gpu_memory_gib > 0)
        disk = named(resources, "PersistentVolumeClaim", "pipeline-data")["spec"]["resources"]["requests"]["storage"]
        assert parse_quantity(disk) >= needs.min_free_disk_gib * 2**30


def config_of(resources):
    """The ConfigMap's own text, read as a pod reads it."""
    import tempfile
    from pathlib import Path

    (text,) = named(resources, "ConfigMap", "pipeline-config")["data"].values()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(text)
        return load_config(str(path))


@pytest.mark.parametrize("overlay", ["overlays/cluster", "overlays/local", "overlays/local/cpu"])
def test_the_configuration_is_a_valid_one(overlay):
    resources = built(overlay)
    config = config_of(resources)
    assert config.profile == ("tiny" if overlay.endswith("cpu") else "llama3-8b")
    assert config == load_config(config.profile, ["runtime.output_dir=/data/output"])
    mounts = {pod.name: pod.containers[0]["volumeMounts"][0] for pod in pods(resources)}
    assert set(mounts) == set(PODS)
    assert all(entry == {"name": "config", "mountPath": "/config", "readOnly": True} for entry in mounts.values())


def test_the_orchestrator_knows_its_job():
    container = container_of(cluster(), "pipeline")
    assert container["args"] == ["--config", "/config/config.yaml", "--runner", "kubernetes"]
    fields = {entry["name"]: entry["valueFrom"]["fieldRef"]["fieldPath"] for entry in container["env"][2:]}
    assert fields == {
        "PIPELINE_JOB_NAME": "metadata.labels['batch.kubernetes.io/job-name']",
        "PIPELINE_JOB_UID": "metadata.labels['batch.kubernetes.io/controller-uid']",
        "POD_NAMESPACE": "metadata.namespace",
    }


def test_later_stages_never_ask_the_hub():
    offline = {
        pod.name for pod in pods(cluster()) if {"name": "HF_HUB_OFFLINE", "value": "1"} in pod.containers[0]["env"]
    }
    assert offline == {"train", "evaluate", "analyze"}


def test_applying_and_deleting_the_pipeline_touches_no_data():
    holding = {"Namespace", "PersistentVolumeClaim", "Secret", "StatefulSet"}
    files = {name: list(yaml.safe_load_all((ROOT / name).read_text())) for name in RENDERED}
    kinds = {name: Counter(entry["kind"] for entry in objects) for name, objects in files.items()}
    assert not holding & set(kinds["pipeline.yaml"])
    assert kinds["pipeline.yaml"] == Counter(
        ConfigMap=1, ServiceAccount=2, Role=1, RoleBinding=1, NetworkPolicy=3, Service=2, CronJob=5, Job=1
    )
    assert kinds["services.yaml"]["CronJob"] == 0
    # The first object others live in, and the Job after what it reads.
    assert [files[name][0]["kind"] for name in RENDERED] == ["Namespace", "Namespace", "ConfigMap"]
    assert files["pipeline.yaml"][-1]["kind"] == "Job"


@pytest.mark.parametrize("name", INSTALLATIONS)
def test_what_a_pod_refers_to_is_there(name):
    resources = built(*INSTALLATIONS[name])
    there = {(entry["kind"], entry["metadata"]["name"]) for entry in resources}
    # made in the cluster by dev-secret (test_dev_secret.py), or the user's own
    there |= {("Secret", known) for known in ("pipeline-storage", "services-credentials")}
    seen = 0
    for pod in pods(resources):
        wanted = [("ServiceAccount", pod.spec.get("serviceAccountName", "stage"))]
        for volume in pod.spec.get("volumes", []):
            if "configMap" in volume:
                wanted.append(("ConfigMap", volume["configMap"]["name"]))
            if "persistentVolumeClaim" in volume:
                wanted.append(("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]))
        for entry in pod.containers[0].get("envFrom", []):
            if not entry["secretRef"].get("optional"):
                wanted.append(("Secret", entry["secretRef"]["name"]))
        assert set(wanted) <= there, pod.name
        seen += len(wanted)
        mounted = {mount["name"] for mount in pod.containers[0]["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod.spec["volumes"]}, pod.name
    assert seen > 20


def test_the_roles_script_is_run_and_not_read_into_another_shell():
    resources = cluster()
    (volume,) = [entry for entry in pod_of(resources, "database").spec["volumes"] if entry["name"] == "roles"]
    assert volume["configMap"]["defaultMode"] == 0o555
    data = named(resources, "ConfigMap", "database-roles")["data"]
    # The image runs them in the order of their names; the passwords are set on roles that are there.
    assert sorted(data) == ["roles.sql", "set_passwords.sh"]
    for name, text in data.items():
        assert text == (REPOSITORY / "docker" / "postgres" / name).read_text()
    script = data["set_passwords.sh"]
    assert set(re.findall(r"ALTER ROLE (\w+)", script)) == set(re.findall(r"CREATE ROLE (\w+)", data["roles.sql"]))
    assert script.startswith("#!/bin/sh\n")
    # The passwords reach psql by the environment, and the manifests set each.
    given = {entry["name"] for entry in container_of(resources, "database")["env"]}
    assert (
        set(re.findall(r"\\getenv \w+ (\w+)", script))
        == {"PIPELINE_OWNER_PASSWORD", "PIPELINE_WRITER_PASSWORD"}
        <= given
    )


def test_services_find_their_pods():
    resources = cluster()
    services = of_kind(resources, "Service")
    for service in services:
        name = service["metadata"]["name"]
        (pod,) = [
            pod
            for pod in pods(resources)
            if service["spec"]["selector"].items() <= pod.template["metadata"]["labels"].items()
        ]
        assert pod.name == name
        if name in GPU_STAGES:
            continue  # A name for each machine, and no port: see test_machines.py.
        (port,) = service["spec"]["ports"]
        assert {entry["name"]: entry["containerPort"] for entry in pod.containers[0]["ports"]} == {
            port["targetPort"]: port["port"]
        }
        assert pod.owner["spec"]["selector"]["matchLabels"].items() <= pod.template["metadata"]["labels"].items()
    assert [entry["metadata"]["name"] for entry in services] == ["bucket", "database", "train", "evaluate"]


def test_kueue_queues_each_stage_and_suspends_nothing(tmp_path):
    resources = build(make_choice(tmp_path, "pipeline", ("gpu", "kueue")))
    label = "kueue.x-k8s.io/queue-name"
    queued = [
        entry["metadata"]["name"]
        for entry in of_kind(resources, "CronJob")
        if entry["spec"]["jobTemplate"]["metadata"]["labels"].get(label) == "alignment"
    ]
    assert queued == list(STAGE_NAMES)
    # Not the pipeline, which would wait for a place while its stages wait for it; and not the template itself.
    others = [*of_kind(resources, "Job"), *of_kind(resources, "CronJob")]
    assert all(label not in entry["metadata"]["labels"] for entry in others)


def test_one_list_names_every_image():
    names = [image.name for image in read_kustomization(ROOT / IMAGES, "Component").images]
    local = [image.name for image in read_kustomization(ROOT / "overlays/local/images", "Component").images]
    assert names == local == [f"alignment-pipeline-{name}" for name in (*STAGE_NAMES, "orchestrator")]
    pinned = [container_of(cluster(), name)["image"] for name in (*PODS, "dev-secret")]
    assert all(re.fullmatch(r"[a-z0-9./:-]+@sha256:[0-9a-f]{64}", reference) for reference in pinned)


# Forms of keys that services give out, and any long run of random characters.
KEYS = re.compile(
    r"AKIA[0-9A-Z]{16}|hf_[A-Za-z0-9]{20}|sk-[A-Za-z0-9]{20}|gh[pousr]_[A-Za-z0-9]{20}|-----BEGIN|eyJ[A-Za-z0-9_-]{20}"
    r"|(?<!sha256:)(?<![\w./-])(?=[\w+/=-]*\d)(?=[\w+/=-]*[a-z])(?=[\w+/=-]*[A-Z])[A-Za-z0-9+=_-]{24,}(?![\w./-])"
)


def test_no_file_holds_a_key():
    files = [path for path in ROOT.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert len(files) > 35
    found = {path.name: KEYS.findall(path.read_text()) for path in files}
    assert {name: keys for name, keys in found.items() if keys} == {}


@pytest.mark.parametrize(
    "text",
    [
        "AKIA" + "ABCDEFGHIJKLMNOP",
        "token: hf_" + "a1B2c3D4e5F6g7H8i9J0",
        "-----BEGIN PRIVATE KEY-----",
        "password: " + "x7Gf0Qz1Lm2Np3Rs4Tu5Vw6Yb",
    ],
)
def test_the_scan_would_find_a_key(text):
    assert KEYS.search(text)
