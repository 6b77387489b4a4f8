"""The orchestrator against a real cluster, in a namespace that is deleted afterwards: `pytest -m cluster`."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import uuid
from collections.abc import Iterator

import pytest

from pipeline_common.config import load_config
from pipeline_common.stages import STAGE_NAMES, find_stage, plan_run
from tests.pipeline.cluster.real_cluster import (
    ACCOUNTS,
    RealCluster,
    as_pipeline,
    before,
    finish,
    headless_service,
    kubectl,
    start,
)
from tests.pipeline.cluster.running import wait_for

pytestmark = pytest.mark.cluster


@pytest.fixture
def cluster(tmp_path) -> Iterator[RealCluster]:
    namespace = f"alignment-check-{uuid.uuid4().hex[:8]}"
    kubectl("create", "namespace", namespace)
    try:
        kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
        kubectl("-n", namespace, "apply", "-f", str(ACCOUNTS))
        made = RealCluster(tmp_path, namespace)
        made.kubeconfig = as_pipeline(namespace, tmp_path / "pipeline.kubeconfig")
        made.uid = made.create_owner("pipeline")
        for stage in STAGE_NAMES:
            made.apply_template(stage, "echo working; sleep 8")
        threading.Thread(target=made.leave_artifacts, daemon=True).start()
        yield made
        made.stopping.set()
    finally:
        kubectl("delete", "namespace", namespace, "--wait=false")


def test_a_whole_run(cluster):
    finish(start(cluster), 0)
    assert sorted(job["metadata"]["labels"]["alignment-pipeline/stage"] for job in cluster.jobs().values()) == sorted(
        STAGE_NAMES
    )


def test_killed_it_adopts(cluster):
    before(cluster, "train")
    process = start(cluster)
    wait_for(lambda: any(pod["status"]["phase"] == "Running" for pod in cluster.pods("train")), "train runs", 180)
    process.send_signal(signal.SIGKILL)
    process.wait()
    uids = {name: job["metadata"]["uid"] for name, job in cluster.jobs().items()}
    assert "is adopted" in finish(start(cluster), 0)
    assert uids.items() <= {name: job["metadata"]["uid"] for name, job in cluster.jobs().items()}.items()


def test_an_evicted_stage_is_tried_again(cluster):
    before(cluster, "train")
    cluster.apply_template("train", "trap 'exit 143' TERM; sleep 15 & wait")
    process = start(cluster)
    wait_for(lambda: any(pod["status"]["phase"] == "Running" for pod in cluster.pods("train")), "train runs", 180)
    (pod,) = cluster.pods("train")
    name = pod["metadata"]["name"]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    path = f"/api/v1/namespaces/{cluster.namespace}/pods/{name}/eviction"
    kubectl("create", "--raw", path, "-f", "-", text=json.dumps(eviction))
    finish(process, 0)
    (job,) = (job for job in cluster.jobs().values() if job["metadata"]["name"].startswith("train"))
    assert not job["status"].get("failed"), "an eviction is no failure of the stage"


def test_machines_find_each_other_by_name(cluster):
    before(cluster, "train")
    kubectl("-n", cluster.namespace, "apply", "-f", "-", text=json.dumps(headless_service("train")))
    find = "until nslookup $LEADER_ADDRESS >/dev/null 2>&1; do sleep 1; done; echo found $LEADER_ADDRESS; sleep 5"
    cluster.apply_template("train", find)
    stderr = finish(start(cluster, "runtime.nodes=2"), 0)
    assert "/2 machines running" in stderr
    (job,) = (job for name, job in cluster.jobs().items() if name.startswith("train"))
    assert job["status"]["completedIndexes"] == "0,1"


def test_the_machine_that_fails_is_named(cluster):
    before(cluster, "train")
    cluster.apply_template("train", '[ "$JOB_COMPLETION_INDEX" = 1 ] && { echo it broke; exit 2; }; sleep 600')
    stderr = finish(start(cluster, "runtime.nodes=2"), 3)
    assert "train (index 1 of 2 machines) ended with exit code 2" in stderr
    assert cluster.failure("train")["log"] == ["it broke"]


def test_a_suspended_stage_goes_on_when_it_is_resumed(cluster):
    """What Kueue does to preempt a stage; being told to stop must not use up its attempts."""
    before(cluster, "train")
    cluster.apply_template("train", "trap 'exit 143' TERM; sleep 20 & wait")
    process = start(cluster)
    for _ in range(4):
        wait_for(lambda: any(pod["status"]["phase"] == "Running" for pod in cluster.pods("train")), "it runs", 180)
        (name,) = (name for name in cluster.jobs() if name.startswith("train"))
        patch = ("-n", cluster.namespace, "patch", "job", name, "--type=merge", "-p")
        kubectl(*patch, '{"spec": {"suspend": true}}')
        wait_for(lambda: not cluster.pods("train"), "its pods are gone", 60)
        kubectl(*patch, '{"spec": {"suspend": false}}')
    stderr = finish(process, 0)
    assert "suspended by its queue" in stderr
    (job,) = (job for job in cluster.jobs().values() if job["metadata"]["name"].startswith("train"))
    assert not job["status"].get("failed")


@pytest.mark.parametrize("code", [1, 2, 3, 137])
def test_a_failed_stage_ends_the_run(cluster, code):
    before(cluster, "train")
    cluster.apply_template("train", f"echo it broke; exit {code}")
    stderr = finish(start(cluster), 3)
    assert f"exit code {code}" in stderr
    assert "  | it broke" in stderr
    kept = cluster.failure("train")
    assert (kept["exit_code"], kept["log"]) == (code, ["it broke"])


def test_deleting_the_pipelines_job_cancels(cluster):
    before(cluster, "train")
    cluster.apply_template("train", "sleep 600")
    process = start(cluster)
    wait_for(lambda: bool(cluster.jobs()), "the train Job", 60)
    process.terminate()
    finish(process, 143)
    kubectl("-n", cluster.namespace, "delete", "job", "pipeline")
    wait_for(lambda: not cluster.jobs(), "the garbage collector", 120)


def test_applying_the_templates_again_leaves_the_run_alone(cluster):
    before(cluster, "train")
    cluster.apply_template("train", "sleep 15")
    process = start(cluster)
    wait_for(lambda: any(pod["status"]["phase"] == "Running" for pod in cluster.pods("train")), "train runs", 180)
    (pod,) = cluster.pods("train")
    for stage in STAGE_NAMES:
        cluster.apply_template(stage, "echo applied again; sleep 8")
    finish(process, 0)
    assert [found["metadata"]["uid"] for found in cluster.pods("train")] == [pod["metadata"]["uid"]]


def test_two_runs_at_once(cluster):
    changed = "evaluate.max_new_tokens=12"
    cluster.other_plans = [plan_run(load_config("tiny", [*cluster.arguments[2:], changed]))]
    second_uid = cluster.create_owner("pipeline-second")
    before(cluster, "evaluate")
    running = [start(cluster), start(cluster, changed, name="pipeline-second", uid=second_uid)]
    for process in running:
        finish(process, 0)
    assert len([name for name in cluster.jobs() if name.startswith("evaluate")]) == 2


def test_the_same_run_twice_is_refused(cluster):
    second_uid = cluster.create_owner("pipeline-second")
    before(cluster, "train")
    cluster.apply_template("train", "sleep 20")
    first = start(cluster)
    wait_for(lambda: bool(cluster.jobs()), "the train Job", 60)
    assert "is being made already" in finish(start(cluster, name="pipeline-second", uid=second_uid), 3)
    finish(first, 0)


def test_no_more_rights_than_it_needs(cluster):
    account = f"system:serviceaccount:{cluster.namespace}:pipeline"

    def may(verb: str, resource: str) -> bool:
        # To kubectl "pods/log" is the pod called log.
        kind, _, below = resource.partition("/")
        asked = [verb, kind, *([f"--subresource={below}"] if below else [])]
        done = subprocess.run(
            ["kubectl", "-n", cluster.namespace, "auth", "can-i", *asked, "--as", account],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip() == "yes"

    needed = {"jobs": ("create", "get", "list", "watch"), "pods": ("list",), "pods/log": ("get",), "events": ("list",)}
    for resource, verbs in needed.items():
        assert all(may(verb, resource) for verb in verbs), resource
    refused = (
        ("get", "secrets"),
        ("create", "pods"),
        ("create", "pods/exec"),
        ("update", "cronjobs"),
        ("create", "rolebindings"),
    )
    assert [entry for entry in refused if may(*entry)] == []


def test_a_missing_role_is_explained(cluster):
    kubectl("-n", cluster.namespace, "delete", "rolebinding", "pipeline")
    stderr = finish(start(cluster), 2)
    assert f"list jobs in namespace {cluster.namespace} is refused (403)" in stderr


def test_a_job_made_from_a_template_passes_a_server_side_dry_run(cluster):
    """`make job`'s Job as the API server sees it: defaulted and validated, nothing kept."""
    from jobs.pipeline.cluster.api import ClusterApi
    from jobs.pipeline.cluster.connection import connect
    from jobs.pipeline.cluster.machines import Machines, spread_job
    from jobs.pipeline.cluster.templates import stage_job

    api = ClusterApi(connect(cluster.namespace))
    for stage in STAGE_NAMES:
        template = api.get("cronjobs", stage)
        assert template is not None
        job = stage_job(template, stage, "0123abcd", ["--config", "tiny"])
        for machines in (Machines(), Machines(nodes=4)):
            made = api.create("jobs", spread_job(job, find_stage(stage), machines), dry_run=True)
            assert made["spec"]["podFailurePolicy"]["rules"][0]["action"] == "Ignore"
    assert cluster.jobs() == {}
