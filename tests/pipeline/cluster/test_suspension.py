"""A queue that holds a stage's Job, lets it run, takes its place away and gives it back: all by `spec.suspend`.

The queue writes that field, at the Job's creation and later; the orchestrator only reads it.
"""

from __future__ import annotations

import pytest

from tests.pipeline.cluster.running import RUN8, publish, wait_for
from tests.servers.stage_scripts import Step

NAME = f"train-{RUN8}"
HELD = "train: queued: suspended by its queue until there is quota for it"


def ready(cluster) -> int:
    found = cluster.api.objects["jobs"].get(NAME)
    return int(found["status"].get("ready") or 0) if found else 0


def is_held(cluster) -> bool:
    conditions = cluster.job("train")["status"].get("conditions", [])
    return any(entry["type"] == "Suspended" and entry["status"] == "True" for entry in conditions)


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_stage_is_held_admitted_preempted_and_resumed(make_cluster, nodes):
    cluster = make_cluster(f"runtime.nodes={nodes}", train=[Step("hang", log=("step 12",)), Step("exit", seconds=1)])
    publish(cluster)
    start = cluster.api.on_create

    def admit_later(job) -> None:
        if job["metadata"]["name"] == NAME:
            cluster.api.suspend(NAME, held=True)
        start(job)

    cluster.api.on_create = admit_later
    process = cluster.start()
    wait_for(lambda: cluster.stage_jobs() == ["train"] and is_held(cluster), "the queue holds it")
    assert cluster.api.objects["pods"] == {}
    cluster.api.suspend(NAME, held=False)
    wait_for(lambda: ready(cluster) == nodes, "it runs")
    wait_for(lambda: cluster.api.count("watch", "jobs") >= 3, "the orchestrator has seen it")
    cluster.api.suspend(NAME, held=True)
    wait_for(lambda: is_held(cluster) and cluster.api.objects["pods"] == {}, "its pods are gone")
    uid = cluster.job("train")["metadata"]["uid"]
    cluster.api.suspend(NAME, held=False)
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 0, stderr
    assert stderr.count(HELD) == 2
    assert cluster.stage_jobs() == ["train", "evaluate", "analyze"]
    job = cluster.job("train")
    assert job["metadata"]["uid"] == uid, "the same Job went on"
    # Being told to stop was no failure, so the attempts are all there still.
    assert not job["status"].get("failed")
    assert job["spec"]["suspend"] is False, "as its queue left it"


def test_the_orchestrator_never_writes_to_a_job(make_cluster):
    cluster = make_cluster()
    publish(cluster)
    start = cluster.api.on_create
    made = []

    def note(job) -> None:
        made.append(job)
        start(job)

    cluster.api.on_create = note
    done = cluster.run()
    assert done.returncode == 0, done.stderr
    assert [job["metadata"]["labels"]["alignment-pipeline/stage"] for job in made] == ["train", "evaluate", "analyze"]
    assert not any("suspend" in job["spec"] for job in made)
    assert {request.verb for request in cluster.api.requests} <= {"get", "list", "watch", "create"}


def test_being_told_to_stop_is_never_a_failure(make_cluster):
    """More often than there are attempts: a preempted stage goes on from its last checkpoint each time."""
    cluster = make_cluster(train=[Step("exit", 143, log=("saved",))] * 5)
    publish(cluster)
    done = cluster.run()
    assert done.returncode == 0, done.stderr
    assert cluster.job("train")["status"].get("failed") in {None, 0}
