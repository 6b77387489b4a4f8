"""The orchestrator with stages on several machines: Indexed Jobs, whose machines end, fail and wait one by one."""

from __future__ import annotations

import signal

import pytest

from jobs.pipeline.cluster.machines import index_of, parse_indexes
from pipeline_common.stages import STAGE_NAMES
from tests.pipeline.cluster.running import RUN8, publish, wait_for
from tests.servers.indexed_jobs import write_indexes
from tests.servers.kubelet import NO_GPU
from tests.servers.stage_scripts import Step

TWO = "runtime.nodes=2"


def running(cluster, stage: str) -> list[int]:
    """Indexes of a stage's pods that run."""
    found = list(cluster.api.objects["pods"].values())
    return sorted(
        index_of(pod)
        for pod in found
        if pod["metadata"]["labels"]["alignment-pipeline/stage"] == stage and pod["status"]["phase"] == "Running"
    )


def test_every_machine_of_every_stage_is_waited_for(make_cluster):
    cluster = make_cluster("runtime.nodes=4", "runtime.gpus=2", train={3: [Step("exit", seconds=3)]})
    done = cluster.run()
    assert done.returncode == 0, done.stderr
    assert cluster.stage_jobs() == list(STAGE_NAMES)
    for stage in STAGE_NAMES:
        job = cluster.job(stage)
        assert job["spec"].get("completionMode") == ("Indexed" if stage in {"train", "evaluate"} else None)
    assert cluster.job("train")["status"]["completedIndexes"] == "0-3"
    assert "Verdict: no damage found" in done.stdout
    names = {
        (pod["spec"]["hostname"], pod["spec"]["subdomain"])
        for pod in cluster.api.objects["pods"].values()
        if pod["metadata"]["labels"]["alignment-pipeline/stage"] == "train"
    }
    assert names == {(f"train-{RUN8}-{index}", "train") for index in range(4)}
    assert "train: 1/4 machines running, 3 done" in done.stderr


def test_what_keeps_a_machine_is_told_with_its_index(make_cluster):
    cluster = make_cluster(
        TWO,
        train={0: [Step("exit", seconds=8)], 1: [Step("unschedulable", seconds=1), Step("image", seconds=6)]},
    )
    publish(cluster)
    done = cluster.run()
    assert done.returncode == 0, done.stderr
    assert f"train: 1/2 machines running; index 1 queued: {NO_GPU}" in done.stderr
    assert "train: 1/2 machines running; index 1 waiting: the image cannot be pulled (ImagePullBackOff" in done.stderr


def test_what_the_machines_share_is_told_when_they_are_started(make_cluster):
    cluster = make_cluster(TWO)
    for template in cluster.api.objects["cronjobs"].values():
        claims = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in ("data", "model")]
        template["spec"]["jobTemplate"]["spec"]["template"]["spec"]["volumes"] = claims
    publish(cluster)
    done = cluster.run()
    assert done.returncode == 0, done.stderr
    told = "2 machines mount data, model: on different nodes these need accessModes: [ReadWriteMany]"
    assert [line.split()[1] for line in done.stderr.splitlines() if told in line] == ["train:", "evaluate:"]


def test_a_machine_that_fails_is_started_again_alone(make_cluster):
    cluster = make_cluster(
        TWO, train={0: [Step("exit", seconds=3)], 1: [Step("exit", 1), Step("evicted"), Step("exit", seconds=2)]}
    )
    publish(cluster)
    done = cluster.run()
    assert done.returncode == 0, done.stderr
    assert "index 1: attempt 2 (the last one " in done.stderr
    pods = [pod for name, pod in cluster.api.objects["pods"].items() if name.startswith("train-")]
    assert sorted(map(index_of, pods)) == [0, 1, 1, 1]


def test_a_machine_that_fails_for_good_ends_the_run_and_is_named(make_cluster):
    cluster = make_cluster(TWO, train={0: [Step("hang")], 1: [Step("exit", 2, seconds=1, log=("no such key",))]})
    publish(cluster)
    done = cluster.run()
    assert done.returncode == 3, done.stderr
    told = "train (index 1 of 2 machines) ended with exit code 2 (configuration or usage"
    assert told in done.stderr.splitlines()[-1]
    kept = cluster.failure("train")
    assert (kept["index"], kept["exit_code"], kept["condition"]) == (1, 2, "PodFailurePolicy")
    # The machine to blame, and not the one that was told to stop after it.
    assert kept["log"] == ["no such key"]
    assert kept["pod"].startswith(f"train-{RUN8}-1-")
    assert "(index 1 of 2 machines)" in cluster.stage_row("train")["message"]
    assert cluster.stage_jobs() == ["train"]


def test_a_machine_without_attempts_left_ends_the_run(make_cluster):
    """The other one, which misses its partner, fails along with code 1 each time: it is not to blame."""
    lost = [Step("exit", 1, seconds=1.2)] * 2
    cluster = make_cluster(TWO, train={0: [*lost, Step("hang")], 1: [Step("oom", seconds=0.5, log=("step 12",))] * 3})
    publish(cluster)
    done = cluster.run()
    assert done.returncode == 3, done.stderr
    kept = cluster.failure("train")
    assert (kept["index"], kept["exit_code"], kept["attempts"]) == (1, 137, 3)
    assert kept["condition"] == "MaxFailedIndexesExceeded"
    assert "(index 1 of 2 machines) ran out of memory" in kept["reason"]
    assert kept["log"] == ["step 12"]


def test_killed_in_mid_run_it_adopts_all_machines(make_cluster):
    cluster = make_cluster(TWO, train=[Step("exit", seconds=5)])
    publish(cluster)
    first = cluster.start()
    wait_for(lambda: running(cluster, "train") == [0, 1], "both machines")
    first.send_signal(signal.SIGKILL)
    first.communicate()
    uid = cluster.job("train")["metadata"]["uid"]
    second = cluster.run()
    assert second.returncode == 0, second.stderr
    assert f"train: Job train-{RUN8} is adopted" in second.stderr
    assert "train: 2/2 machines running" in second.stderr
    assert cluster.job("train")["metadata"]["uid"] == uid
    assert cluster.made == 3, "train, evaluate and analyze, once each"


def test_deleting_the_pipelines_job_ends_every_machine(make_cluster):
    cluster = make_cluster(TWO, train=[Step("hang")])
    publish(cluster)
    process = cluster.start()
    wait_for(lambda: running(cluster, "train") == [0, 1], "both machines")
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 143
    cluster.api.remove("jobs", "pipeline")
    assert cluster.api.jobs() == []
    assert cluster.api.objects["pods"] == {}


@pytest.mark.parametrize(
    ("indexes", "text"), [(set(), ""), ({0}, "0"), ({0, 1}, "0,1"), ({0, 1, 2}, "0-2"), ({0, 2, 3, 9}, "0,2,3,9")]
)
def test_the_server_writes_indexes_as_they_are_read(indexes, text):
    assert write_indexes(indexes) == text
    assert parse_indexes(text) == indexes
