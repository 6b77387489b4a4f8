"""Who may speak to whom: the whole table, worked out from the policies."""

from __future__ import annotations

import pytest

from jobs.pipeline.cluster.machines import Machines
from pipeline_common.stages import STAGE_NAMES
from tests.manifests.installations import INSTALLATIONS
from tests.manifests.pods import of_kind, pods
from tests.manifests.reach import Peer, allowed, component, unused_policies
from tests.manifests.test_machines import made
from tests.manifests.tree import built, named

DNS = Peer(53, (("k8s-app", "kube-dns"),), same_namespace=False, protocol="UDP")
TARGETS = {
    "names": DNS,
    "bucket": component("bucket", 9000),
    "database": component("database", 5432),
    # documentation addresses stand for the public internet
    "hub": Peer(443, address="203.0.113.7"),
    "API server": Peer(6443, address="10.0.0.10"),
}
NEVER = {
    "a cloud's metadata": Peer(80, address="169.254.169.254"),
    "a cloud's metadata, TLS": Peer(443, address="169.254.169.254"),
    "the internet, no TLS": Peer(80, address="203.0.113.7"),
    "another stage": component("prepare", 8080),
    "the bucket, another port": component("bucket", 22),
    "another namespace's web server": Peer(8080, (("app", "web"),), same_namespace=False),
}
TABLE = {
    "environment": {"names", "bucket", "database", "hub"},
    "prepare": {"names", "bucket", "database", "hub"},
    "train": {"names", "bucket", "database"},
    "evaluate": {"names", "bucket", "database"},
    "analyze": {"names", "bucket", "database"},
    # The public address and the API server's share port 443: whoever may call the one may call the other.
    "pipeline": {"names", "bucket", "database", "hub", "API server"},
    "dev-secret": {"names", "hub", "API server"},
    "bucket": {"names"},
    "database": {"names"},
}


def labels_of(resources):
    return {pod.name: pod.template["metadata"]["labels"] for pod in pods(resources)}


def test_the_table_of_connections():
    resources = built(*INSTALLATIONS["cluster"])
    found = {
        name: {target for target, peer in TARGETS.items() if allowed(resources, labels, peer)}
        for name, labels in labels_of(resources).items()
    }
    assert found == TABLE
    assert not any(
        allowed(resources, labels, peer) for labels in labels_of(resources).values() for peer in NEVER.values()
    )


def test_a_created_job_is_let_through_like_its_template():
    """The pipeline changes `managed-by`; no policy may depend on it."""
    resources = built(*INSTALLATIONS["cluster"])
    for name in STAGE_NAMES:
        labels = {**labels_of(resources)[name], "app.kubernetes.io/managed-by": "pipeline"}
        assert {target for target, peer in TARGETS.items() if allowed(resources, labels, peer)} == TABLE[name]


def several(stage: str, port: int = 29500) -> tuple[dict[str, str], Peer]:
    """A pod of a stage on several machines, as the one that calls and as the one that is called."""
    job = made("overlays/cluster", stage, Machines(nodes=2))
    labels = job["spec"]["template"]["metadata"]["labels"]
    return labels, Peer(port, tuple(labels.items()))


def test_machines_that_train_speak_to_each_other_and_no_others_do():
    resources = built(*INSTALLATIONS["cluster"])
    # any port: the leader's, and those that NCCL and Gloo choose
    for port in (29500, 45123):
        callers = {**labels_of(resources), **{f"{stage} of several": several(stage)[0] for stage in STAGE_NAMES}}
        called = {
            **{stage: component(stage, port) for stage in STAGE_NAMES},
            **{f"{stage} of several": several(stage, port)[1] for stage in STAGE_NAMES},
        }
        found = {
            (source, target)
            for source, labels in callers.items()
            for target, peer in called.items()
            if allowed(resources, labels, peer)
        }
        assert found == {("train of several", "train of several")}
    assert not allowed(resources, several("train")[0], Peer(29500, address="10.1.2.3"))


@pytest.mark.parametrize("stage", ["train", "evaluate"])
def test_on_several_machines_a_stage_reaches_what_it_reaches_on_one(stage):
    resources = built(*INSTALLATIONS["cluster"])
    labels, _ = several(stage)
    assert {target for target, peer in TARGETS.items() if allowed(resources, labels, peer)} == TABLE[stage]


def test_a_stranger_in_the_namespace_reaches_nothing():
    resources = built(*INSTALLATIONS["cluster"])
    stranger = {"app": "other"}
    assert not any(allowed(resources, stranger, peer) for peer in [*TARGETS.values(), *NEVER.values()])


def test_own_services_are_reached_where_they_are():
    resources = built(*INSTALLATIONS["own bucket and database"])
    places = {
        "bucket": Peer(443, address="198.51.100.1"),
        "private bucket": Peer(9000, address="10.1.2.3"),
        "database": Peer(5432, address="10.1.2.4"),
    }
    for labels in labels_of(resources).values():
        assert all(allowed(resources, labels, peer) for peer in places.values())
        assert not allowed(resources, labels, NEVER["a cloud's metadata, TLS"])


@pytest.mark.parametrize("name", INSTALLATIONS)
def test_every_policy_concerns_some_pod(name):
    resources = built(*INSTALLATIONS[name])
    assert len(of_kind(resources, "NetworkPolicy")) >= 5
    assert unused_policies(resources) == []


@pytest.mark.parametrize(
    ("policy", "lost"),
    [
        ("names", ("train", "names")),
        ("to-bucket", ("train", "bucket")),
        ("bucket", ("train", "bucket")),
        ("to-database", ("analyze", "database")),
        ("database", ("analyze", "database")),
        ("hub", ("prepare", "hub")),
        ("api-server", ("pipeline", "API server")),
        ("dev-secret", ("dev-secret", "API server")),
        ("train-machines", ("train of several", "train of several")),
    ],
)
def test_without_a_policy_its_connection_is_closed(policy, lost):
    """Each is needed: default-deny closes both ends of what it opened."""
    resources = built(*INSTALLATIONS["cluster"])
    source, target = lost
    labels = {**labels_of(resources), "train of several": several("train")[0]}[source]
    peer = {**TARGETS, "train of several": several("train")[1]}[target]
    assert allowed(resources, labels, peer)
    resources.remove(named(resources, "NetworkPolicy", policy))
    assert not allowed(resources, labels, peer)


def test_without_default_deny_everything_is_open():
    resources = built(*INSTALLATIONS["cluster"])
    for policy in of_kind(resources, "NetworkPolicy"):
        resources.remove(policy)
    assert all(
        allowed(resources, labels_of(resources)["bucket"], peer) for peer in [*TARGETS.values(), *NEVER.values()]
    )
