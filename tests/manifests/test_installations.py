"""What an installation holds fits together: configuration, references, services, queues, images."""

from __future__ import annotations

import re
from collections import Counter

import pytest
import yaml

from k8s.rendering.files import IMAGES, RENDERED, ROOT
from k8s.rendering.kustomization import build, read_kustomization
from pipeline_common.config import load_config
from pipeline_common.stages import STAGE_NAMES, STAGES
from tests.manifests.installations import (
    INSTALLATIONS,
    PODS,
    cluster,
    container_of,
    pod_of,
)
from tests.manifests.pods import GPU_STAGES, of_kind, pods
from tests.manifests.tree import OVERLAYS, built, make_choice, named


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
