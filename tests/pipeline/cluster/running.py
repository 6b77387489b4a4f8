"""Starting the orchestrator against the made cluster, with stages that only leave what a stage must leave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from jobs.pipeline.results import failure_key
from pipeline_common import provenance
from pipeline_common.artifacts import DirectoryStore
from pipeline_common.config import load_config
from pipeline_common.database import Database, write_rows
from pipeline_common.manifest import Manifest, list_files
from pipeline_common.stages import REPOSITORY, STAGE_NAMES, Plan, plan_run
from pipeline_common.tables import TABLES
from tests.servers.kubelet import Kubelet
from tests.servers.kubernetes_api import KubernetesApi
from tests.servers.stage_scripts import Script
from tests.servers.stage_templates import stage_template

OWNER = {
    "metadata": {
        "name": "pipeline",
        "uid": "0123abcd-4444-4444-8888-123456789abc",
        "labels": {"app.kubernetes.io/name": "alignment-pipeline", "app.kubernetes.io/component": "pipeline"},
    },
    "spec": {},
    "status": {},
}
RUN8 = "0123abcd"


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 60) -> None:
    """Until it is so, or the test has failed."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.05)


@dataclass
class Cluster:
    """The made cluster, with the stores that its pods would share."""

    api: KubernetesApi
    folder: Path
    scripts: dict[str, Script] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    exit_code: int = 0

    def __post_init__(self) -> None:
        self.output = self.folder / "output"
        self.kubeconfig = self.api.write_kubeconfig(self.folder / "kubeconfig")
        self.store = DirectoryStore(self.folder / "bucket")
        self.database = Database(f"sqlite:///{self.folder}/results.db", 10)
        self.arguments = ("--config", "tiny", f"runtime.output_dir={self.output}", *self.overrides)
        self.plan: Plan = plan_run(load_config("tiny", self.arguments[2:]))
        self.other_plans: list[Plan] = []
        for stage in STAGE_NAMES:
            self.api.put("cronjobs", stage_template(stage))
        self.api.put("jobs", json.loads(json.dumps(OWNER)))
        self.kubelet = Kubelet(self.api, self.scripts, self.publish)

    def publish(self, stage: str, job: Mapping[str, Any]) -> None:
        """Leave an artifact as the stage would: the one its Job asks for, unless another run has made it."""
        asked = job.get("metadata", {}).get("annotations", {}).get("alignment-pipeline/fingerprint")
        known = [plan.stages[stage] for plan in (self.plan, *self.other_plans)]
        planned = next((found for found in known if found.fingerprint == asked), known[0])
        if self.store.read_manifest(planned.key) is not None:
            return
        files = self.folder / "made" / planned.key
        files.mkdir(parents=True, exist_ok=True)
        (files / "content.txt").write_text(stage)
        if stage == "environment":
            self.database.migrate()
        if stage == "train":
            metrics = {"split": "train", "step": 1, "epoch": 0.1, "loss": 2.5}
            write_rows(files / "rows" / "training_metrics.jsonl", [metrics])
        if stage == "analyze":
            found = {"signals": [], "verdict": "no damage found", "headline": "Nothing warned."}
            (files / "summary.json").write_text(json.dumps(found))
        summary = {"exit_code": self.exit_code} if stage == "analyze" else {}
        self.store.publish(
            files,
            Manifest(
                stage=stage,
                fingerprint=planned.fingerprint,
                payload=json.loads(json.dumps(planned.payload)),
                run_id=self.plan.run_id,
                files=list_files(files),
                summary=summary,
                provenance=provenance.collect(provenance.now(), 1),
            ),
        )

    def environment(self, **changed: str) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if name != "RUN_ID"},
            "KUBECONFIG": str(self.kubeconfig),
            "ARTIFACTS_URI": self.store.uri,
            "DATABASE_URL": f"sqlite:///{self.folder}/results.db",
            "PIPELINE_JOB_NAME": "pipeline",
            "PIPELINE_JOB_UID": OWNER["metadata"]["uid"],
            "POD_NAMESPACE": self.api.namespace,
            **changed,
        }

    def start(self, *more: str, **changed: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "jobs.pipeline", *self.arguments, "--runner", "kubernetes", *more],
            cwd=REPOSITORY,
            env=self.environment(**changed),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *more: str, **changed: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*more, **changed)
        stdout, stderr = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def stage_jobs(self) -> list[str]:
        """Stages that have a Job, in order."""
        found = {item["metadata"]["labels"]["alignment-pipeline/stage"] for item in self._made_jobs()}
        return [stage for stage in STAGE_NAMES if stage in found]

    def job(self, stage: str) -> dict[str, Any]:
        return self.api.objects["jobs"][f"{stage}-{RUN8}"]

    @property
    def made(self) -> int:
        """Jobs that were ever created."""
        return self.kubelet.made

    def _made_jobs(self) -> list[dict[str, Any]]:
        return [item for item in self.api.objects["jobs"].values() if item["metadata"]["name"] != "pipeline"]

    def stage_row(self, stage: str) -> dict[str, Any]:
        table = TABLES["stage_runs"]
        rows = self.database.select(sa.select(table).where(table.c.stage == stage))
        assert len(rows) == 1
        return rows[0]

    def failure(self, stage: str) -> dict[str, Any]:
        content = self.store.get_bytes(failure_key(self.plan.run_id, stage))
        assert content is not None
        return json.loads(content)


def publish(cluster: Cluster, stages: Sequence[str] = ("environment", "prepare")) -> None:
    """Earlier stages are finished, so that a test begins where it wants to."""
    for stage in stages:
        cluster.publish(stage, {})
