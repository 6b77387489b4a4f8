"""The guide to running on a cluster names what there is."""

from __future__ import annotations

import re
import textwrap

import pytest
import yaml

from k8s.rendering.files import SUPPORTED
from pipeline_common.stages import REPOSITORY
from tests.manifests.pods import SECRETS_OF
from tests.manifests.test_network import TABLE
from tests.manifests.tree import built, named

(GUIDE,) = (path.read_text() for path in (REPOSITORY / "docs").glob("cluster*.md"))


def test_versions_are_those_that_are_checked():
    assert f"Kubernetes {SUPPORTED[0]} to {SUPPORTED[1]}" in GUIDE


def test_files_and_folders_exist():
    named_paths = set(re.findall(r"\b((?:k8s|docker|docs)/[\w./<>-]*\w)", GUIDE))
    assert len(named_paths) > 8
    for path in named_paths:
        assert list(REPOSITORY.glob(path.replace("<stage>", "train"))), path


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    used = set(re.findall(r"(?:^    |`)make ([a-z-]+)", GUIDE, re.MULTILINE))
    assert len(used) > 5
    # `images` belongs to the Dockerfile; the rest is the manifests own.
    assert used - {"images"} <= targets


@pytest.mark.parametrize("name", ["pipeline-storage", "pipeline-database-owner", "pipeline-hub", "pipeline-judge"])
def test_the_table_of_secrets_says_who_reads_them(name):
    readers = {pod for pod, secrets in SECRETS_OF.items() if name in secrets}
    (row,) = re.findall(rf"^\| `{name}`.*\| (.*) \|$", GUIDE, re.MULTILINE)
    told = {"environment", "prepare", "train", "evaluate", "analyze", "pipeline"}
    if row != "every stage, the pipeline":
        told = set(row.split(", "))
    assert told == readers
    if name == "pipeline-storage":
        keys = set(named(built("overlays/cluster/own-services"), "Secret", name)["stringData"])
        assert (
            set(re.findall(r"`([A-Z_0-9]+)`", next(line for line in GUIDE.splitlines() if f"| `{name}`" in line)))
            == keys
        )


def test_the_table_of_connections_is_the_worked_out_one():
    rows = dict(re.findall(r"^\| ([a-z, ]+) \| (.*) \|$", GUIDE.split("may speak to")[1], re.MULTILINE))
    seen = 0
    for pods, targets in rows.items():
        for pod in pods.split(", "):
            if pod in TABLE:
                seen += 1
                assert ("hub" in targets) == ("hub" in TABLE[pod] and "API server" not in TABLE[pod]), pod
                assert ("API server" in targets) == ("API server" in TABLE[pod]), pod
                assert targets.startswith("bucket, database") == ("bucket" in TABLE[pod]), pod
    assert seen == len(TABLE) - 1  # dev-secret is told elsewhere


def test_kueues_objects_are_yaml_and_name_the_label():
    (text,) = re.findall(r"<<'QUEUES'\n(.*?)    QUEUES", GUIDE, re.DOTALL)
    objects = list(yaml.safe_load_all(textwrap.dedent(text)))
    assert [entry["kind"] for entry in objects] == ["ResourceFlavor", "ClusterQueue", "LocalQueue"]
    component = (REPOSITORY / "k8s/components/kueue/kustomization.yaml").read_text()
    assert f"value: {objects[2]['metadata']['name']}\n" in component
    # What a Workload asks for and no resource group covers is never admitted.
    covered = set(objects[1]["spec"]["resourceGroups"][0]["coveredResources"])
    asked = {
        resource
        for entry in built("overlays/cluster")
        if entry["kind"] == "CronJob"
        for side in entry["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["resources"].values()
        for resource in side
    }
    assert asked == covered
