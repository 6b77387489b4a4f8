"""A stage's Job on several machines, made from the shipped templates: what the API server and the stage are given."""

from __future__ import annotations

import pytest
from kubernetes.utils.quantity import parse_quantity
from kubernetes_validate import validate

from jobs.pipeline.cluster.machines import Machines, list_indexes, parse_indexes, spread_job, times
from jobs.pipeline.cluster.templates import stage_job
from k8s.rendering.files import SUPPORTED
from pipeline_common.config import load_config
from pipeline_common.errors import InputError
from pipeline_common.members import find_member
from pipeline_common.stages import STAGE_NAMES, find_stage
from tests.manifests.pods import of_kind
from tests.manifests.tree import built, named

PLACES = ("overlays/cluster", "overlays/local", "overlays/local/cpu")


def made(overlay: str, stage: str, machines: Machines):
    template = named(built(overlay), "CronJob", stage)
    return spread_job(stage_job(template, stage, "0123abcd", ["--config", "tiny"]), find_stage(stage), machines)


def container_of(job):
    (container,) = job["spec"]["template"]["spec"]["containers"]
    return container


@pytest.mark.parametrize("version", SUPPORTED)
@pytest.mark.parametrize("overlay", PLACES)
def test_what_is_made_is_valid(overlay, version):
    for stage in STAGE_NAMES:
        for machines in (Machines(), Machines(nodes=2), Machines(gpus=8), Machines(nodes=16, gpus=8)):
            validate(made(overlay, stage, machines), version, strict=True)


def test_one_machine_with_one_gpu_is_the_template_itself():
    for stage in STAGE_NAMES:
        template = named(built("overlays/cluster"), "CronJob", stage)
        plain = stage_job(template, stage, "0123abcd", ["--config", "tiny"])
        assert spread_job(plain, find_stage(stage), Machines()) == plain


@pytest.mark.parametrize("stage", ["environment", "prepare", "analyze"])
def test_a_stage_that_is_not_spread_stays_as_it_is(stage):
    assert made("overlays/cluster", stage, Machines(4, 8)) == made("overlays/cluster", stage, Machines())


@pytest.mark.parametrize("stage", ["train", "evaluate"])
def test_several_machines_are_an_indexed_job_of_pods_with_names(stage):
    job = made("overlays/cluster", stage, Machines(nodes=4))
    spec = job["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 4, 4)
    # Each machine has the template's three attempts; the first without one left ends the Job.
    assert (spec["backoffLimitPerIndex"], spec["maxFailedIndexes"]) == (2, 0)
    assert "backoffLimit" not in spec
    assert "suspend" not in spec
    template = named(built("overlays/cluster"), "CronJob", stage)["spec"]["jobTemplate"]["spec"]
    for kept in ("podFailurePolicy", "podReplacementPolicy", "activeDeadlineSeconds", "ttlSecondsAfterFinished"):
        assert spec[kept] == template[kept]
    # Kubernetes gives the pods the host names <job>-<index>; the Service of this name gives them to the DNS.
    services = {entry["metadata"]["name"]: entry["spec"] for entry in of_kind(built("overlays/cluster"), "Service")}
    labels = spec["template"]["metadata"]["labels"]
    assert services[spec["template"]["spec"]["subdomain"]]["selector"].items() <= labels.items()
    assert len(f"{job['metadata']['name']}-3") <= 63


def test_the_stage_finds_its_place_in_what_its_pod_is_given():
    job = made("overlays/cluster", "train", Machines(nodes=2))
    given = {entry["name"]: entry["value"] for entry in container_of(job)["env"]}
    config = load_config("tiny", ["runtime.nodes=2"])
    member = find_member(config, find_stage("train"), {**given, "JOB_COMPLETION_INDEX": "1"})
    assert (member.index, member.nodes, member.leader, member.port) == (1, 2, "train-0123abcd-0.train", 29500)


def test_an_address_in_the_template_gives_way():
    template = named(built("overlays/cluster"), "CronJob", "train")
    container = template["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    container["env"].append({"name": "LEADER_ADDRESS", "value": "elsewhere"})
    job = spread_job(stage_job(template, "train", "0123abcd", None), find_stage("train"), Machines(nodes=2))
    (address,) = [entry["value"] for entry in container_of(job)["env"] if entry["name"] == "LEADER_ADDRESS"]
    assert address == "train-0123abcd-0.train"


@pytest.mark.parametrize("overlay", PLACES)
def test_gpus_are_raised_where_the_template_asks_for_one(overlay):
    resources = container_of(made(overlay, "train", Machines(gpus=4)))["resources"]
    found = {side: resources[side].get("nvidia.com/gpu") for side in ("requests", "limits")}
    asked = None if overlay.endswith("cpu") else "4"
    assert found == {"requests": asked, "limits": asked}


def test_a_machine_gets_the_templates_share_for_each_of_its_processes():
    """4 and 8 processors, 24 and 48 GiB for one GPU; scratch space stays."""
    for stage in ("train", "evaluate"):
        job = made("overlays/cluster", stage, Machines(nodes=2, gpus=8))
        assert container_of(job)["resources"] == {
            "requests": {"cpu": "32", "memory": "192Gi", "ephemeral-storage": "1Gi", "nvidia.com/gpu": "8"},
            "limits": {"cpu": "64", "memory": "384Gi", "ephemeral-storage": "20Gi", "nvidia.com/gpu": "8"},
        }
        volumes = {entry["name"]: entry for entry in job["spec"]["template"]["spec"]["volumes"]}
        assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "16Gi"}
        assert volumes["tmp"]["emptyDir"] == {"sizeLimit": "10Gi"}
    small = container_of(made("overlays/local/cpu", "train", Machines(gpus=3)))["resources"]
    assert small == {
        "requests": {"cpu": "750m", "memory": "3Gi", "ephemeral-storage": "256Mi"},
        "limits": {"cpu": "6", "memory": "12Gi", "ephemeral-storage": "4Gi"},
    }


@pytest.mark.parametrize(
    ("quantity", "count", "product"),
    [("250m", 3, "750m"), ("1.5Gi", 2, "3Gi"), ("0.5", 3, "1.5"), (4, 8, "32"), ("100", 10, "1000")],
)
def test_amounts_are_multiplied_in_their_own_unit(quantity, count, product):
    assert times(quantity, count) == product
    assert parse_quantity(product) == parse_quantity(quantity) * count


@pytest.mark.parametrize("quantity", ["", "Gi", "-1", "1e3", "4 Gi"])
def test_an_amount_that_is_none_is_refused(quantity):
    with pytest.raises(InputError, match="expected an amount such as 4, 500m, 8Gi"):
        times(quantity, 2)


def test_the_template_is_not_changed():
    template = named(built("overlays/cluster"), "CronJob", "train")
    before = repr(template)
    plain = stage_job(template, "train", "0123abcd", None)
    told = repr(plain)
    spread_job(plain, find_stage("train"), Machines(2, 2))
    assert (repr(template), repr(plain)) == (before, told)


@pytest.mark.parametrize(
    ("text", "indexes"), [(None, set()), ("", set()), ("0", {0}), ("0,2-4", {0, 2, 3, 4}), ("1-2,9", {1, 2, 9})]
)
def test_indexes_are_read_as_a_status_lists_them(text, indexes):
    assert parse_indexes(text) == indexes


def test_indexes_are_told_by_their_number():
    assert list_indexes([3]) == "index 3"
    assert list_indexes([1, 2]) == "indexes 1, 2"
