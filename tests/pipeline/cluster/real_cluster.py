"""A namespace of a real cluster with what a run needs, and the orchestrator against it.

Stages are containers of a stub image (CLUSTER_TEST_IMAGE, any with `sh`; busybox else) that end as a test wants; what
they would leave in the bucket, this process leaves there while they run. The orchestrator is a process of this machine
with the token of the service account `pipeline`, so that the Role of the manifests is tested with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import yaml

from pipeline_common.stages import REPOSITORY, STAGE_NAMES
from tests.pipeline.cluster.running import Cluster
from tests.servers.stage_templates import stage_template

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


def headless_service(stage: str) -> dict[str, Any]:
    selector = {"app.kubernetes.io/component": stage}
    spec = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": selector}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": stage}, "spec": spec}
