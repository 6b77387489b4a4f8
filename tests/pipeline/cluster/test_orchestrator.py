"""The orchestrator as a process of its own, against a server that speaks the API."""

from __future__ import annotations

import re
import signal
import sqlite3
import threading

import pytest
import sqlalchemy as sa

from pipeline_common.config import load_config
from pipeline_common.stages import STAGE_NAMES, plan_run
from pipeline_common.tables import TABLES
from tests.pipeline.cluster.running import OWNER, RUN8, publish, wait_for
from tests.servers.kubelet import NO_GPU
from tests.servers.stage_scripts import Step


def test_every_stage_runs_in_order_as_a_job_of_its_template(make_cluster):
    cluster = make_cluster("train.max_steps=7")
    order = []
    start = cluster.api.on_create

    def note(job) -> None:
        order.append(job["metadata"]["labels"]["alignment-pipeline/stage"])
        start(job)

    cluster.api.on_create = note
    done = cluster.run()
    assert done.returncode == 0, done.stderr
    assert order == list(STAGE_NAMES)
    job = cluster.job("train")
    assert job["metadata"]["ownerReferences"] == [
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": "pipeline",
            "uid": OWNER["metadata"]["uid"],
            "controller": False,
            "blockOwnerDeletion": False,
        }
    ]
    labels = {
        "app.kubernetes.io/name": "alignment-pipeline",
        "app.kubernetes.io/component": "train",
        "app.kubernetes.io/managed-by": "pipeline",
        "alignment-pipeline/run": RUN8,
        "alignment-pipeline/stage": "train",
    }
    assert job["metadata"]["labels"] == labels
    assert job["spec"]["template"]["metadata"]["labels"] == labels
    annotations = job["metadata"]["annotations"]
    assert annotations["alignment-pipeline/run-id"] == cluster.plan.run_id
    assert annotations["alignment-pipeline/fingerprint"] == cluster.plan.stages["train"].fingerprint
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["args"] == [*cluster.arguments, "--run-id", cluster.plan.run_id]
    assert "Verdict: no damage found" in done.stdout
    exported = cluster.folder / "bucket" / "runs" / cluster.plan.run_id / "centralized.db"
    with sqlite3.connect(exported) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_cached_stages_create_no_job(make_cluster):
    cluster = make_cluster()
    publish(cluster, [stage for stage in STAGE_NAMES if stage != "evaluate"])
    done = cluster.run()
    assert done.returncode == 0, done.stderr
    assert cluster.stage_jobs() == ["evaluate"]
    assert re.search(r"^pipeline +cached: train/", done.stderr, re.MULTILINE)
    assert cluster.stage_row("train")["state"] == "cached"
    rows = cluster.database.select(sa.select(TABLES["training_metrics"]))
    assert [(row["run_id"], row["step"], row["loss"]) for row in rows] == [(cluster.plan.run_id, 1, 2.5)]


def test_of_a_cached_artifact_only_the_rows_are_fetched(make_cluster):
    """The large files are not even looked at: here they are gone, as if it were another machine's disk."""
    cluster = make_cluster()
    publish(cluster, [stage for stage in STAGE_NAMES if stage != "analyze"])
    train = cluster.folder / "bucket" / cluster.plan.stages["train"].key
    (train / "content.txt").unlink()
    done = cluster.run()
    assert done.returncode == 0, done.stderr
    assert cluster.stage_jobs() == ["analyze"]


def test_force_runs_what_is_cached(make_cluster):
    cluster = make_cluster()
    publish(cluster, STAGE_NAMES)
    done = cluster.run("--force")
    assert done.returncode == 0, done.stderr
    assert cluster.stage_jobs() == list(STAGE_NAMES)
    assert cluster.job("train")["spec"]["template"]["spec"]["containers"][0]["args"][-1] == "--force"


def test_killed_at_every_step_it_adopts_and_finishes(make_cluster):
    """SIGKILL of the n-th process at its (2n+1)-th request: before the server has done it, or before its answer."""
    cluster = make_cluster(train=[Step("oom"), Step("exit")])
    killed_at: list[tuple[str, str, str]] = []
    while True:
        process = cluster.start()
        strike = Strike(process, at=2 * len(killed_at) + 1, when=("before", "after")[len(killed_at) % 2])
        # In time: an interpreter needs longer than this for its first request.
        cluster.api.on_request = strike
        _, stderr = process.communicate(timeout=120)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, stderr
        assert strike.struck is not None
        killed_at.append(strike.struck)
        assert len(killed_at) < 40
    assert len(killed_at) >= 6
    assert cluster.stage_jobs() == list(STAGE_NAMES)
    assert cluster.made == 5, "each stage had one Job for all of these orchestrators"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("stage", STAGE_NAMES)
def test_killed_while_a_job_is_being_created_it_makes_exactly_one(make_cluster, stage, when):
    cluster = make_cluster()
    publish(cluster, STAGE_NAMES[: STAGE_NAMES.index(stage)])
    first = cluster.start()
    strike = Strike(first, at=1, when=when, verb="create")
    cluster.api.on_request = strike
    first.communicate(timeout=60)
    assert strike.struck == ("create", "jobs", when)
    cluster.api.on_request = lambda _request, _when: None
    second = cluster.run()
    assert second.returncode == 0, second.stderr
    assert cluster.stage_jobs() == list(STAGE_NAMES[STAGE_NAMES.index(stage) :])
    assert cluster.made == len(cluster.stage_jobs())


class Strike:
    """Kills a process at one of its requests, once."""

    def __init__(self, process, *, at: int, when: str, verb: str | None = None) -> None:
        self.process, self.at, self.when, self.verb = process, at, when, verb
        self.count = 0
        self.struck: tuple[str, str, str] | None = None

    def __call__(self, request, when) -> None:
        if when != self.when or (self.verb and request.verb != self.verb) or self.struck:
            return
        self.count += 1
        if self.count == self.at:
            self.struck = (request.verb, request.resource, when)
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


@pytest.mark.parametrize(
    ("steps", "code", "state", "told"),
    [
        ([Step("exit", 1, log=("lost the server",))] * 3, 1, "failed", "exit code 1 (unexpected or transient"),
        ([Step("exit", 2, log=("no such key",))], 2, "failed", "exit code 2 (configuration or usage"),
        ([Step("exit", 3, log=("rows are missing",))], 3, "failed", "exit code 3 (an input is missing"),
        ([Step("oom", log=("step 12",))] * 3, 137, "failed", "ran out of memory (OOMKilled, exit code 137)"),
        ([Step("unschedulable"), Step("deadline")], None, "failed", "DeadlineExceeded: activeDeadlineSeconds 3600"),
    ],
    ids=["code 1", "code 2", "code 3", "out of memory", "deadline"],
)
def test_a_failed_stage_ends_the_run_with_its_reason_in_every_place(make_cluster, steps, code, state, told):
    cluster = make_cluster(train=steps)
    publish(cluster)
    done = cluster.run()
    assert done.returncode == 3, done.stderr
    assert cluster.stage_jobs() == ["train"]
    assert told in done.stderr.splitlines()[-1]
    row = cluster.stage_row("train")
    assert (row["state"], row["exit_code"]) == (state, code)
    assert told in row["message"]
    kept = cluster.failure("train")
    assert told in kept["reason"]
    assert kept["exit_code"] == code
    assert kept["attempts"] == max(1, len([step for step in steps if step.kind in {"exit", "oom"}]))
    if steps[0].log:
        assert kept["log"] == list(steps[0].log)
        assert kept["message"] == steps[0].log[0]
        assert f"  | {steps[0].log[0]}" in done.stderr


def test_a_mended_run_forgets_the_failure(make_cluster):
    cluster = make_cluster(train=[Step("exit", 3)])
    publish(cluster)
    assert cluster.run().returncode == 3
    cluster.scripts["train"] = []
    again = cluster.run(PIPELINE_JOB_UID="ffff0000-1111-4222-8333-444455556666")
    assert again.returncode == 0, again.stderr
    assert cluster.store.get_bytes(f"runs/{cluster.plan.run_id}/failures/train.json") is None


def test_what_passes_is_waited_for_and_explained(make_cluster):
    told = {
        "suspended": "train: queued: suspended by its queue until there is quota for it",
        "quota": "train: queued: FailedCreate: Error creating: pods is forbidden: exceeded quota: gpus",
        "unschedulable": f"train: queued: {NO_GPU}",
        "image": "waiting: the image cannot be pulled "
        '(ImagePullBackOff: Back-off pulling image "nowhere/train:missing")',
    }
    seen = {kind: threading.Event() for kind in told}
    waits = [Step(kind, until=seen[kind]) for kind in ("suspended", "quota", "unschedulable", "image")]
    # A wait that ends before anybody looks is no harm either.
    waits.insert(3, Step("secret", seconds=0.5))
    cluster = make_cluster(train=[*waits, Step("evicted", log=("checkpoint saved",)), Step("exit", seconds=0.5)])
    publish(cluster)
    process = cluster.start()
    for line in process.stderr:
        for kind, words in told.items():
            if words in line:
                seen[kind].set()
    assert process.wait(60) == 0
    assert {kind for kind, event in seen.items() if event.is_set()} == set(told)
    assert cluster.stage_jobs() == ["train", "evaluate", "analyze"]


def test_a_gated_verdict_is_the_exit_code(make_cluster):
    cluster = make_cluster(analyze=[Step("exit", 4)])
    cluster.exit_code = 4
    publish(cluster, STAGE_NAMES[:-1])
    done = cluster.run()
    assert done.returncode == 4, done.stderr
    assert "Verdict:" in done.stdout


def test_sigterm_leaves_the_stage_running_and_the_next_process_adopts_it(make_cluster):
    ended = threading.Event()
    cluster = make_cluster(train=[Step("exit", until=ended)])
    publish(cluster)
    first = cluster.start()
    wait_for(lambda: cluster.stage_jobs() == ["train"], "the train Job")
    wait_for(lambda: cluster.api.count("watch", "jobs") >= 1, "a watch")
    first.terminate()
    _, stderr = first.communicate(timeout=30)
    assert first.returncode == 143, stderr
    uid = cluster.job("train")["metadata"]["uid"]
    before = cluster.api.count("watch", "jobs")
    second = cluster.start()
    wait_for(lambda: cluster.api.count("watch", "jobs") > before, "a watch of the second process")
    ended.set()
    _, stderr = second.communicate(timeout=120)
    assert second.returncode == 0, stderr
    assert f"train: Job train-{RUN8} is adopted" in stderr
    assert cluster.job("train")["metadata"]["uid"] == uid


def test_deleting_the_pipelines_job_cancels_its_stages(make_cluster):
    cluster = make_cluster(train=[Step("hang")])
    publish(cluster)
    process = cluster.start()
    wait_for(lambda: cluster.stage_jobs() == ["train"], "the train Job")
    process.terminate()
    process.communicate(timeout=30)
    cluster.api.remove("jobs", "pipeline")
    assert cluster.api.jobs() == []
    assert cluster.api.objects["pods"] == {}


def test_a_job_deleted_by_hand_is_made_again(make_cluster):
    ended = threading.Event()
    cluster = make_cluster(train=[Step("exit", until=ended)])
    publish(cluster)
    process = cluster.start()
    wait_for(lambda: cluster.stage_jobs() == ["train"], "the train Job")
    wait_for(lambda: cluster.api.count("watch", "jobs") >= 1, "a watch")
    cluster.api.remove("jobs", f"train-{RUN8}")
    ended.set()
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert stderr.count(f"train: Job train-{RUN8} created") == 2


def test_two_runs_of_different_settings_go_side_by_side(make_cluster):
    cluster = make_cluster(train=[Step("exit", seconds=1)])
    changed = "evaluate.max_new_tokens=12"
    cluster.other_plans = [plan_run(load_config("tiny", [*cluster.arguments[2:], changed]))]
    publish(cluster)
    second_uid = "ffff0000-1111-4222-8333-444455556666"
    running = [cluster.start(), cluster.start(changed, PIPELINE_JOB_UID=second_uid)]
    for process in running:
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr
    assert {f"{stage}-{run}" for stage in ("evaluate", "analyze") for run in (RUN8, "ffff0000")} <= set(
        cluster.api.jobs()
    )
    runs = {row["run_id"] for row in cluster.database.select(sa.select(TABLES["experiments"]))}
    assert runs == {cluster.plan.run_id, cluster.other_plans[0].run_id}
