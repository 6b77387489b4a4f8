"""The orchestrator against a real cluster, in a namespace of its own that is deleted afterwards: `pytest -m cluster`.

Stages are containers of a stub image (CLUSTER_TEST_IMAGE, any with `sh`; busybox else) that end as a test wants; what
they would leave in the bucket, this process leaves there while they run. The orchestrator is a process of this machine
with the token of the service account `pipeline`, so that the Role of the manifests is tested with it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline_common.config import load_config
from pipeline_common.stages import REPOSITORY, STAGE_NAMES, find_stage, plan_run
from tests.pipeline.cluster.running import Cluster, wait_for
from tests.servers.stage_templates import stage_template

pytestmark = pytest.mark.cluster
IMAGE = os.environ.get("CLUSTER_TEST_IMAGE", "busybox:1.36")
ACCOUNTS = REPOSITORY / "k8s" / "base" / "pipeline" / "accounts.yaml"
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "runAsNonRoot": True,
    "runAsUser": 10001,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def kubectl(*arguments: str, text: str | None = None) -> str:
    done = subprocess.run(["kubectl", *arguments], input=text, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


class RealCluster(Cluster):
    """The same stores and the same process as with the made cluster, in a namespace of a real one."""

    def __init__(self, folder: Path, namespace: str) -> None:
        self.namespace = namespace
        self.api = self  # type: ignore[assignment]
        self.folder, self.scripts, self.overrides, self.exit_code = folder, {}, (), 0
        self.stopping = threading.Event()
        self.published: set[str] = set()
        self.uid = ""
        super().__post_init__()

    # What the made cluster is asked for while it is set up.

    def write_kubeconfig(self, path: Path) -> Path:
        return Path(os.environ["KUBECONFIG"]) if not path.exists() else path

    def put(self, resource: str, item: dict[str, Any]) -> None:
        del resource, item

    # What a test does.

    def apply_template(self, stage: str, script: str) -> None:
        template = stage_template(stage)
        template["spec"]["concurrencyPolicy"] = "Forbid"
        spec = template["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        spec["terminationGracePeriodSeconds"] = 1
        (container,) = spec["containers"]
        # The arguments that the orchestrator sets follow as $0, $1, ...
        container |= {"image": IMAGE, "command": ["sh", "-c", script], "securityContext": RESTRICTED}
        container["terminationMessagePolicy"] = "FallbackToLogsOnError"
        kubectl("-n", self.namespace, "apply", "-f", "-", text=json.dumps(template))

    def create_owner(self, name: str) -> str:
        container = {"name": "pipeline", "image": IMAGE, "command": ["sleep", "3600"], "securityContext": RESTRICTED}
        job = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name},
            "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
        }
        kubectl("-n", self.namespace, "create", "-f", "-", text=json.dumps(job))
        return kubectl("-n", self.namespace, "get", "job", name, "-o", "jsonpath={.metadata.uid}")

    def jobs(self) -> dict[str, dict[str, Any]]:  # type: ignore[override]
        items = json.loads(kubectl("-n", self.namespace, "get", "jobs", "-l", "alignment-pipeline/stage", "-o", "json"))
        return {item["metadata"]["name"]: item for item in items["items"]}

    def pods(self, stage: str) -> list[dict[str, Any]]:
        selector = f"alignment-pipeline/stage={stage}"
        return list(json.loads(kubectl("-n", self.namespace, "get", "pods", "-l", selector, "-o", "json"))["items"])

    def environment(self, **changed: str) -> dict[str, str]:
        return super().environment(POD_NAMESPACE=self.namespace, **changed)

    def leave_artifacts(self) -> None:
        """What the containers would leave, once they run."""
        while not self.stopping.wait(0.5):
            for name, job in self.jobs().items():
                stage = job["metadata"]["labels"]["alignment-pipeline/stage"]
                if name not in self.published and job["status"].get("ready"):
                    self.publish(stage, job)
                    self.published.add(name)


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


def as_pipeline(namespace: str, path: Path) -> Path:
    """A kubeconfig with the rights of the service account `pipeline` and no others."""
    content = yaml.safe_load(kubectl("config", "view", "--minify", "--raw", "--flatten"))
    token = kubectl("-n", namespace, "create", "token", "pipeline").strip()
    content["users"] = [{"name": content["users"][0]["name"], "user": {"token": token}}]
    path.write_text(yaml.safe_dump(content))
    return path


def start(cluster: RealCluster, *more: str, name: str = "pipeline", uid: str | None = None) -> subprocess.Popen[str]:
    return cluster.start(*more, PIPELINE_JOB_NAME=name, PIPELINE_JOB_UID=uid or cluster.uid)


def finish(process: subprocess.Popen[str], code: int) -> str:
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == code, stderr
    return stderr


def before(cluster: RealCluster, stage: str) -> None:
    for name in STAGE_NAMES[: STAGE_NAMES.index(stage)]:
        cluster.publish(name, {})


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


def headless_service(stage: str) -> dict[str, Any]:
    selector = {"app.kubernetes.io/component": stage}
    spec = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": selector}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": stage}, "spec": spec}


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
