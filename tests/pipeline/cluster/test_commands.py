"""What people type on their own machine, against a server that speaks the API."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
import yaml

from jobs.pipeline.cluster import commands
from pipeline_common.stages import REPOSITORY, STAGE_NAMES
from tests.pipeline.cluster.running import RUN8, wait_for
from tests.servers.kubelet import NO_GPU
from tests.servers.kubernetes_http import Fault
from tests.servers.stage_scripts import Step

MODULE = "jobs.pipeline.cluster"


def call(kubeconfig, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
    return subprocess.run(
        [sys.executable, "-m", MODULE, *arguments],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def standalone(cluster) -> list[str]:
    return [name for name in cluster.api.jobs() if name != "pipeline"]


def test_a_stage_runs_as_a_job_and_its_log_is_followed(make_cluster):
    looked = threading.Event()
    cluster = make_cluster(
        evaluate=[Step("unschedulable", until=looked), Step("exit", log=("step 1", "step 2"), seconds=1)]
    )
    cluster.api.on_request = lambda request, when: (
        looked.set() if (request.resource, when) == ("events", "after") else None
    )
    cluster.api.faults = [Fault("follow", "pods/log", "drop", times=2)]
    done = call(cluster.kubeconfig, "job", "--stage", "evaluate", "--run-id", "mine", "evaluate.max_new_tokens=12")
    assert done.returncode == 0, done.stderr
    # Two broken connections, and every line once.
    assert done.stdout.splitlines() == ["step 1", "step 2"]
    assert f"queued: {NO_GPU}" in done.stderr
    (name,) = standalone(cluster)
    job = cluster.api.objects["jobs"][name]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["--config", "tiny", "evaluate.max_new_tokens=12", "--run-id", "mine"]
    assert "ownerReferences" not in job["metadata"]


@pytest.mark.parametrize("code", [1, 2, 3, 137])
def test_the_stages_exit_code_is_the_commands(make_cluster, code):
    steps = [Step("exit", code, log=("it broke",))] * 3
    cluster = make_cluster(train=steps)
    done = call(cluster.kubeconfig, "job", "--stage", "train", "--config", "tiny")
    assert done.returncode == code
    assert f"exit code {code}" in done.stderr
    assert done.stdout.splitlines() == ["it broke"] * (3 if code in {1, 137} else 1)


def test_a_mistake_creates_nothing(make_cluster):
    cluster = make_cluster()
    for arguments, told in (
        (["--stage", "evalute"], f"the stages are {', '.join(STAGE_NAMES)}"),
        ([], f"the stages are {', '.join(STAGE_NAMES)}"),
        (["--stage", "train", "train.max_stepps=3"], "did you mean 'train.max_steps'?"),
    ):
        done = call(cluster.kubeconfig, "job", *arguments)
        assert done.returncode == 2
        assert told in done.stderr
    for command in (["job", "--stage", "train"], ["pipeline"]):
        done = call(cluster.kubeconfig, *command, "--run-id", "a b")
        assert done.returncode == 2
        assert "'a b' cannot be the name of a run" in done.stderr
    assert cluster.api.requests == []


def test_without_a_cluster_one_line_says_what_to_do(make_cluster, tmp_path):
    cluster = make_cluster()
    gone = yaml.safe_load(cluster.kubeconfig.read_text())
    gone["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:9"
    (tmp_path / "gone").write_text(yaml.safe_dump(gone))
    for kubeconfig, code, told in (
        (tmp_path / "gone", 1, "no cluster answers at the context made"),
        (tmp_path / "none", 2, "no Kubernetes cluster is configured here"),
    ):
        done = call(kubeconfig, "job", "--stage", "evaluate")
        assert done.returncode == code
        (line,) = done.stderr.splitlines()
        assert told in line
        assert "`make kind-up`" in line
        assert "`make run STAGE=evaluate`" in line


@pytest.mark.parametrize("content", ["kind: [", "\x00", "users: [{name: a, user: {token: the-token}}\nkind: {"])
def test_a_file_that_is_no_kubeconfig_is_one_line_without_what_stands_in_it(tmp_path, content):
    (tmp_path / "broken").write_text(content)
    for module, *arguments in (("jobs.pipeline.cluster", "job", "--stage", "train"), ("jobs.pipeline.dev_secret",)):
        environment = {**os.environ, "KUBECONFIG": str(tmp_path / "broken")}
        environment.pop("KUBERNETES_SERVICE_HOST", None)
        command = [sys.executable, "-m", module, *arguments]
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert f"{tmp_path}/broken cannot be read as a kubeconfig" in line
        assert "the-token" not in line


def test_status_shows_runs_stages_and_why_they_wait(make_cluster, tmp_path):
    cluster = make_cluster(train=[Step("unschedulable", seconds=60)])
    labels = {"app.kubernetes.io/name": "alignment-pipeline", "app.kubernetes.io/component": "dev-secret"}
    cluster.api.put("jobs", {"metadata": {"name": "dev-secret", "labels": labels}, "spec": {}, "status": {}})
    for stage in ("environment", "prepare"):
        cluster.publish(stage, {})
    process = cluster.start()
    wait_for(lambda: cluster.api.count("list", "events") > 0, "the wait was looked into")
    done = call(cluster.kubeconfig, "status", f"runtime.output_dir={tmp_path}/nothing")
    process.kill()
    process.communicate()
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "Cluster made, namespace alignment:" in lines
    assert any(line.startswith(f"  {RUN8}  pipeline, run {cluster.plan.run_id}") for line in lines)
    assert any(line.split() == ["prepare", *["no", "Job:", "cached,", "or", "not", "reached"]] for line in lines)
    assert f"    train        queued: {NO_GPU}" in lines
    assert "dev-secret" not in done.stdout, "a Job of the services is no run"


def test_status_shows_how_far_a_running_stage_is_by_the_log_of_its_pod(make_cluster, tmp_path):
    told = "training: 30 of 60 (loss 1.234, 830 tokens/s), 12 s left"
    cluster = make_cluster(train=[Step("hang", log=(f"train        {told}", "train        another line"))])
    assert call(cluster.kubeconfig, "job", "--stage", "train", "--no-follow").returncode == 0
    wait_for(lambda: any(cluster.api.logs.values()), "the stage has written")
    done = call(cluster.kubeconfig, "status", f"runtime.output_dir={tmp_path}/nothing")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert any(line.startswith("    train        running") and line.endswith(f": {told}") for line in lines), lines


def test_status_shows_the_results_of_this_machine(make_cluster, tmp_path, monkeypatch):
    cluster = make_cluster(train=[Step("exit", 3, log=("rows are missing",))])
    for stage in ("environment", "prepare"):
        cluster.publish(stage, {})
    assert cluster.run().returncode == 3
    monkeypatch.setenv("ARTIFACTS_URI", cluster.store.uri)
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{cluster.folder}/results.db")
    done = call(tmp_path / "none", "status", *cluster.arguments)
    assert done.returncode == 0, done.stderr
    assert "Cluster: no Kubernetes cluster is configured here" in done.stdout
    assert f"  run {cluster.plan.run_id}" in done.stdout
    assert "    prepare      cached (attempt 1, " in done.stdout
    assert "exit code 3): ended with exit code 3 (an input is missing or damaged" in done.stdout
    assert "    evaluate     not reached" in done.stdout
    assert f"    prepare      cached as {cluster.plan.stages['prepare'].key}" in done.stdout
    assert "    train        would run: no train artifact exists yet" in done.stdout


def test_logs_follow_the_newest_job_of_a_stage(make_cluster):
    cluster = make_cluster(prepare=[Step("exit", log=("reading", "writing"))])
    assert call(cluster.kubeconfig, "job", "--stage", "prepare", "--no-follow").returncode == 0
    done = call(cluster.kubeconfig, "logs", "--stage", "prepare")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["reading", "writing"]
    missing = call(cluster.kubeconfig, "logs", "--stage", "train")
    assert missing.returncode == 3
    assert "has no Job of train" in missing.stderr


def test_a_new_run_is_made_from_the_manifest_and_cancelled(make_cluster, tmp_path, monkeypatch, capsys):
    cluster = make_cluster()
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    labels = {"app.kubernetes.io/name": "alignment-pipeline", "app.kubernetes.io/component": "pipeline"}
    container = {
        "name": "pipeline",
        "image": "made",
        "args": ["--config", "/config/config.yaml", "--runner", "kubernetes"],
    }
    manifest = tmp_path / "pipeline.yaml"
    documents = [
        {"kind": "ConfigMap", "metadata": {"name": "pipeline-config"}},
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "pipeline", "namespace": "alignment", "labels": labels},
            "spec": {"template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}}},
        },
    ]
    manifest.write_text(yaml.safe_dump_all(documents))
    cluster.api.on_create = lambda _job: None
    assert commands.start_pipeline(None, ["train.max_steps=7"], "mine", force=False, manifest=manifest) == 0
    (name,) = standalone(cluster)
    job = cluster.api.objects["jobs"][name]
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == [
        *container["args"],
        "train.max_steps=7",
        "--run-id",
        "mine",
    ]
    assert commands.cancel(None, name) == 0
    assert f"Job {name} deleted" in capsys.readouterr().out
    assert cluster.api.jobs() == ["pipeline"], "the other run goes on"
    assert commands.cancel(None, name) == 0
    assert "nothing to cancel" in capsys.readouterr().out


def test_cancelling_a_stage_leaves_jobs_of_pipelines_alone(make_cluster):
    cluster = make_cluster(train=[Step("hang")])
    for stage in ("environment", "prepare"):
        cluster.publish(stage, {})
    assert call(cluster.kubeconfig, "job", "--stage", "train", "--no-follow").returncode == 0
    process = cluster.start()
    wait_for(lambda: len(standalone(cluster)) == 2, "both Jobs")
    done = call(cluster.kubeconfig, "cancel", "--stage", "train")
    process.kill()
    process.communicate()
    assert done.returncode == 0, done.stderr
    assert standalone(cluster) == [f"train-{RUN8}"]


def test_a_stage_on_two_machines_is_followed_by_the_log_of_the_first(make_cluster):
    cluster = make_cluster(
        train={0: [Step("exit", log=("leader",), seconds=1)], 1: [Step("exit", log=("other",), seconds=2)]}
    )
    done = call(cluster.kubeconfig, "job", "--stage", "train", "runtime.nodes=2", "runtime.gpus=2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["leader"]
    (name,) = standalone(cluster)
    assert f"{name} runs on 2 machines; this is the log of index 0, make logs STAGE=train INDEX=0 ... 1" in done.stderr
    job = cluster.api.objects["jobs"][name]
    assert job["spec"]["completions"] == 2
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["--config", "tiny", "runtime.nodes=2", "runtime.gpus=2"]
    assert {"name": "LEADER_ADDRESS", "value": f"{name}-0.train"} in container["env"]
    other = call(cluster.kubeconfig, "logs", "--stage", "train", "--index", "1")
    assert other.returncode == 0, other.stderr
    assert other.stdout.splitlines() == ["other"]
    for index, told in (("2", "has no machine with index 2: it has indexes 0 to 1"), ("x", "INDEX=x is no machine's")):
        wrong = call(cluster.kubeconfig, "logs", "--stage", "train", "--index", index)
        assert wrong.returncode == 2
        assert told in wrong.stderr


def test_the_machines_of_a_stage_are_those_of_the_clusters_own_configuration(make_cluster):
    cluster = make_cluster()
    text = "extends: llama3-8b\nprofile: llama3-8b\nruntime:\n  nodes: 3\n"
    cluster.api.put("configmaps", {"metadata": {"name": "pipeline-config"}, "data": {"config.yaml": text}})
    assert call(cluster.kubeconfig, "job", "--stage", "evaluate", "--no-follow").returncode == 0
    assert call(cluster.kubeconfig, "job", "--stage", "train", "--config", "tiny", "--no-follow").returncode == 0
    assert call(cluster.kubeconfig, "job", "--stage", "analyze", "--no-follow").returncode == 0
    jobs = {name.split("-")[0]: cluster.api.objects["jobs"][name]["spec"] for name in standalone(cluster)}
    assert {stage: spec.get("completions") for stage, spec in jobs.items()} == {
        "evaluate": 3,
        "train": None,
        "analyze": None,
    }


CLAIMS = {"pipeline-data": "ReadWriteOnce", "pipeline-model": "ReadWriteMany"}


@pytest.mark.parametrize(
    ("command", "modes", "told"),
    [
        (["job", "--stage", "train", "--no-follow", "runtime.nodes=2"], CLAIMS, True),
        (["pipeline", "runtime.nodes=2"], CLAIMS, True),
        (["job", "--stage", "train", "--no-follow"], CLAIMS, False),
        (["pipeline"], CLAIMS, False),
        (["job", "--stage", "analyze", "--no-follow", "runtime.nodes=2"], CLAIMS, False),
        (["pipeline", "runtime.nodes=2"], dict.fromkeys(CLAIMS, "ReadWriteMany"), False),
    ],
)
def test_several_machines_are_warned_of_volumes_that_one_node_mounts(make_cluster, command, modes, told):
    cluster = make_cluster()
    cluster.api.on_create = lambda _job: None
    for name, mode in modes.items():
        claim = {"metadata": {"name": name}, "spec": {"accessModes": [mode]}}
        cluster.api.put("persistentvolumeclaims", claim)
    volumes = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in modes]
    for template in cluster.api.objects["cronjobs"].values():
        template["spec"]["jobTemplate"]["spec"]["template"]["spec"]["volumes"] = [*volumes, {"name": "tmp"}]
    done = call(cluster.kubeconfig, *command)
    assert done.returncode == 0, done.stderr
    warning = "2 machines, and volumes that one node at a time can mount: pipeline-data (ReadWriteOnce)."
    assert (warning in done.stderr) is told
    assert "pipeline-model" not in done.stderr
    assert len(cluster.api.jobs()) == 2, "it is started all the same: one node may hold both machines"


def test_status_counts_the_machines_that_run(make_cluster, tmp_path):
    cluster = make_cluster(train={0: [Step("hang")], 1: [Step("unschedulable", seconds=60)]})
    assert call(cluster.kubeconfig, "job", "--stage", "train", "--no-follow", "runtime.nodes=2").returncode == 0
    done = call(cluster.kubeconfig, "status", f"runtime.output_dir={tmp_path}/nothing")
    assert done.returncode == 0, done.stderr
    assert f"    train        1/2 machines running; index 1 queued: {NO_GPU}" in done.stdout.splitlines()
