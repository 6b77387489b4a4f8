"""A troubled API server, missing rights, wrong settings and strangers: explained, and nothing half done."""

from __future__ import annotations

import json
import threading
import time

import pytest

from pipeline_common.stages import STAGE_NAMES
from tests.pipeline.cluster.running import RUN8, Cluster, publish, wait_for
from tests.servers.kubernetes_http import Fault
from tests.servers.stage_scripts import Step


@pytest.mark.parametrize(
    "faults",
    [
        [Fault("watch", "jobs", "gone-event", times=2), Fault("watch", "jobs", 410)],
        [Fault("watch", "jobs", "cut", times=3)],
        [Fault("watch", "jobs", "end", times=4)],
        [Fault("list", "jobs", "drop", times=2), Fault("watch", "jobs", "drop"), Fault("list", "pods", "drop")],
        [Fault("create", "jobs", "drop"), Fault("create", "jobs", "drop-after", times=2)],
        [Fault("list", "jobs", 503, times=2), Fault("get", "cronjobs", 500), Fault("create", "jobs", 504)],
        [Fault("list", "jobs", 429, headers={"Retry-After": "1"}), Fault("create", "jobs", 429)],
        [Fault("list", "jobs", "slow", seconds=1.5), Fault("watch", "jobs", "slow", seconds=1.5)],
    ],
    ids=["410", "cut", "closed at once", "dropped", "create dropped", "5xx", "429", "slow"],
)
def test_a_troubled_api_server_changes_nothing(make_cluster, faults):
    cluster = make_cluster(train=[Step("exit", seconds=0.5)])
    publish(cluster, ["environment"])
    cluster.api.faults = faults
    done = cluster.run()
    assert done.returncode == 0, done.stderr
    assert cluster.stage_jobs() == ["prepare", "train", "evaluate", "analyze"]
    assert [fault.times for fault in faults] == [0] * len(faults), "every fault has happened"
    assert "Traceback" not in done.stderr


def test_history_that_is_compacted_during_a_wait_is_listed_again(make_cluster):
    ended = threading.Event()
    cluster = make_cluster(train=[Step("exit", until=ended)])
    publish(cluster)
    process = cluster.start()
    wait_for(lambda: cluster.api.count("watch", "jobs") >= 2, "a watch")
    lists = cluster.api.count("list", "jobs")
    cluster.api.compact()
    wait_for(lambda: cluster.api.count("list", "jobs") > lists, "another list")
    ended.set()
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr


def test_a_lost_connection_is_noticed_by_the_clients_own_clock(make_cluster):
    """The first watch hangs for longer than it was asked for; the Job ends meanwhile and is found by a list."""
    cluster = make_cluster(train=[Step("exit", seconds=0.2)])
    publish(cluster, [stage for stage in STAGE_NAMES if stage != "train"])
    cluster.api.faults = [Fault("watch", "jobs", "slow", seconds=90)]
    began = time.monotonic()
    done = cluster.run()
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 80


@pytest.mark.parametrize(
    ("forbidden", "told"),
    [
        (("list", "jobs"), "list jobs in namespace alignment is refused (403)"),
        (("get", "cronjobs"), "get cronjobs in namespace alignment is refused (403)"),
        (("create", "jobs"), "create jobs in namespace alignment is refused (403)"),
        (("watch", "jobs"), "watch jobs in namespace alignment is refused (403)"),
        (("list", "pods"), "list pods in namespace alignment is refused (403)"),
    ],
)
def test_a_missing_right_is_named_with_its_remedy(make_cluster, forbidden, told):
    cluster = make_cluster(train=[Step("hang")])
    publish(cluster)
    cluster.api.forbidden = {forbidden}
    done = cluster.run()
    assert done.returncode == 2, done.stderr
    assert told in done.stderr
    assert "Role and RoleBinding `pipeline`" in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_credentials_are_explained(make_cluster):
    cluster = make_cluster()
    cluster.api.write_kubeconfig(cluster.kubeconfig, token="stale")
    done = cluster.run()
    assert done.returncode == 2
    assert "does not accept the credentials of made (401)" in done.stderr


def test_a_wrong_configuration_is_refused_before_any_request(make_cluster):
    cluster = make_cluster()
    done = cluster.run("train.learning_rate=-1")
    assert done.returncode == 2
    assert "train.learning_rate" in done.stderr
    assert cluster.api.requests == []


@pytest.mark.parametrize("missing", ["ARTIFACTS_URI", "DATABASE_URL", "PIPELINE_JOB_UID"])
def test_a_missing_secret_or_owner_is_named(make_cluster, missing):
    cluster = make_cluster()
    done = cluster.run(**{missing: ""})
    assert done.returncode == 2
    assert missing in done.stderr
    assert cluster.api.requests == []


AWAY = {
    "bucket": (
        {
            "ARTIFACTS_URI": "s3://made/artifacts",
            "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
            "AWS_ACCESS_KEY_ID": "made",
            "AWS_SECRET_ACCESS_KEY": "made",
        },
        1,
        "the bucket's server is away (EndpointConnectionError); check AWS_ENDPOINT_URL_S3",
    ),
    "key of the bucket": (
        {
            "ARTIFACTS_URI": "s3://made/artifacts",
            "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
            "AWS_ACCESS_KEY_ID": "",
            "AWS_SECRET_ACCESS_KEY": "",
        },
        2,
        "no complete credentials (NoCredentialsError); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    ),
    "database": (
        {"DATABASE_URL": "postgresql+psycopg2://made:hunter2@127.0.0.1:9/results"},
        1,
        "the database postgresql+psycopg2://made:***@127.0.0.1:9/results cannot be used",
    ),
}


@pytest.mark.parametrize("what", AWAY)
def test_a_store_that_cannot_be_reached_is_told_before_any_job_exists(make_cluster, what):
    settings, code, told = AWAY[what]
    cluster = make_cluster("artifacts.give_up_after_s=1", "database.give_up_after_s=1")
    nowhere = {"AWS_EC2_METADATA_DISABLED": "true", "HOME": str(cluster.folder)}
    done = cluster.run(**nowhere, **settings)
    assert done.returncode == code, done.stderr
    assert told in done.stderr.splitlines()[-1]
    assert "hunter2" not in done.stderr
    assert cluster.made == 0


def test_a_quota_of_jobs_that_is_used_up_is_told(make_cluster):
    cluster = make_cluster()
    publish(cluster)
    refusal = (
        'jobs.batch "train-x" is forbidden: exceeded quota: jobs, requested: count/jobs.batch=1, used: 9, limited: 9'
    )
    cluster.api.faults = [Fault("create", "jobs", 403, message=refusal)]
    done = cluster.run()
    assert done.returncode == 3, done.stderr
    assert "a quota of namespace alignment is used up" in done.stderr
    assert "remove finished Jobs, or raise it" in done.stderr
    assert "Role" not in done.stderr, "no right is missing"


def test_a_second_pipeline_of_the_same_run_is_refused(make_cluster):
    cluster = make_cluster(train=[Step("hang")])
    publish(cluster)
    first = cluster.start()
    wait_for(lambda: cluster.stage_jobs() == ["train"], "the train Job")
    second = cluster.run(PIPELINE_JOB_UID="ffff0000-1111-4222-8333-444455556666", PIPELINE_JOB_NAME="pipeline-second")
    first.terminate()
    first.communicate(timeout=30)
    assert second.returncode == 3
    assert (
        f"run {cluster.plan.run_id} is being made already: Job train-{RUN8}, which belongs to pipeline" in second.stderr
    )


def test_a_job_of_somebody_else_under_our_name_is_not_touched(make_cluster):
    cluster = make_cluster()
    publish(cluster)
    stranger = {
        "metadata": {"name": f"train-{RUN8}", "labels": {"alignment-pipeline/stage": "train"}},
        "spec": {"template": {"metadata": {"labels": {}}, "spec": {}}},
        "status": {},
    }
    cluster.api.put("jobs", json.loads(json.dumps(stranger)))
    done = cluster.run()
    assert done.returncode == 3
    assert f"Job train-{RUN8} has this run's name, but was not made by Job pipeline" in done.stderr
    assert f"train-{RUN8}" in cluster.api.jobs()


def test_a_missing_template_is_named(make_cluster):
    cluster = make_cluster()
    publish(cluster)
    cluster.api.remove("cronjobs", "train")
    done = cluster.run()
    assert done.returncode == 3
    assert "namespace alignment has no CronJob 'train'" in done.stderr


def test_a_stage_that_saw_other_settings_is_found_out(make_cluster):
    """The stage ends well, but its artifact is another: the message names the field that differs."""
    cluster = make_cluster()
    publish(cluster)
    elsewhere = Cluster(cluster.api, cluster.folder, {}, ("train.max_steps=9",))
    cluster.kubelet.publish = lambda stage, _job: elsewhere.publish(stage, {})
    cluster.api.on_create = cluster.kubelet.start
    done = cluster.run()
    assert done.returncode == 3, done.stderr
    assert "ended well, but left no train/" in done.stderr
    assert "train.max_steps: 9 -> 60" in done.stderr
