"""The runner in this process, for what would take an orchestrator ten minutes."""

from __future__ import annotations

import pytest

from jobs.pipeline.cluster.api import ClusterApi, WatchExpiredError
from jobs.pipeline.cluster.connection import connect
from jobs.pipeline.cluster.runner import KubernetesRunner
from jobs.pipeline.cluster.templates import Owner
from jobs.pipeline.machine import Phase
from pipeline_common.errors import InputError, TransientError
from tests.pipeline.cluster.running import OWNER, RUN8
from tests.servers.kubernetes_http import Fault
from tests.servers.stage_scripts import Step


@pytest.fixture
def open_runner(make_cluster, monkeypatch):
    def open_it(patience_s: float = 10.0, **scripts):
        cluster = make_cluster(**scripts)
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
        api = ClusterApi(connect(), patience_s=patience_s)
        owner = Owner("pipeline", OWNER["metadata"]["uid"])
        runner = KubernetesRunner(api, owner, "mine", ["--config", "tiny"], give_up_after_s=0.0)
        return cluster, runner

    return open_it


def observe_until(runner, planned, phase: Phase):
    seen = runner.observe(planned, wait=False)
    while seen.phase is not phase:
        seen = runner.observe(planned, wait=True)
    return seen


@pytest.mark.parametrize(
    ("kind", "told"),
    [("image", "the image cannot be pulled (ImagePullBackOff"), ("secret", 'secret "pipeline-storage" not found')],
)
def test_what_cannot_start_is_stuck(open_runner, kind, told):
    cluster, runner = open_runner(train=[Step(kind, seconds=600)])
    planned = cluster.plan.stages["train"]
    assert runner.observe(planned, wait=False).phase is Phase.ABSENT
    runner.start(planned)
    seen = observe_until(runner, planned, Phase.STUCK)
    assert told in seen.failure.reason
    assert seen.failure.job == f"train-{RUN8}"


def test_cancel_deletes_the_job_and_is_safe_to_repeat(open_runner):
    cluster, runner = open_runner(train=[Step("hang")])
    planned = cluster.plan.stages["train"]
    runner.start(planned)
    runner.cancel(planned)
    runner.cancel(planned)
    assert runner.observe(planned, wait=False).phase is Phase.ABSENT


def test_logs_are_the_last_lines(open_runner):
    cluster, runner = open_runner(train=[Step("exit", log=tuple(f"step {number}" for number in range(9)))])
    planned = cluster.plan.stages["train"]
    assert runner.logs(planned, 2) == ()
    runner.start(planned)
    observe_until(runner, planned, Phase.SUCCEEDED)
    assert runner.logs(planned, 2) == ("step 7", "step 8")


def test_patience_ends_and_says_who_did_not_answer(open_runner):
    cluster, runner = open_runner(patience_s=1.0)
    cluster.api.faults = [Fault("list", "jobs", 503, times=1000)]
    with pytest.raises(TransientError, match=r"answers 503 ServiceUnavailable for more than 1 s"):
        runner.observe(cluster.plan.stages["train"], wait=False)


def test_a_refused_job_names_its_template(open_runner):
    cluster, runner = open_runner()
    cluster.api.faults = [Fault("create", "jobs", 422)]
    with pytest.raises(InputError, match=f"refuses Job train-{RUN8}: made fault; correct the CronJob 'train'"):
        runner.start(cluster.plan.stages["train"])


def test_a_template_without_its_container_is_named(open_runner):
    cluster, runner = open_runner()
    template = cluster.api.objects["cronjobs"]["train"]
    template["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["name"] = "main"
    with pytest.raises(InputError, match="has no container 'stage', only main"):
        runner.start(cluster.plan.stages["train"])


def test_bookmarks_keep_a_quiet_watch_young(make_cluster, monkeypatch):
    """Others change, the Jobs do not: history that is compacted then does not reach the version a bookmark told."""
    cluster = make_cluster()
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    api = ClusterApi(connect(), patience_s=1.0)
    listed = api.list("jobs")["metadata"]["resourceVersion"]
    cluster.api.put("events", {"metadata": {"name": "other"}})
    told = [(kind, item["metadata"]["resourceVersion"]) for kind, item in api.watch("jobs", listed, 1.0)]
    assert {kind for kind, _ in told} == {"BOOKMARK"}
    assert int(told[-1][1]) > int(listed)
    cluster.api.compact(before=int(told[-1][1]))
    with pytest.raises(WatchExpiredError):
        list(api.watch("jobs", listed, 1.0))
    assert {kind for kind, _ in api.watch("jobs", told[-1][1], 1.0)} == {"BOOKMARK"}


def test_a_runner_goes_on_waiting_through_bookmarks(open_runner):
    cluster, runner = open_runner(train=[Step("exit", seconds=2)])
    cluster.api.bookmark_every_s = 0.05
    planned = cluster.plan.stages["train"]
    runner.start(planned)
    observe_until(runner, planned, Phase.RUNNING)
    lists = cluster.api.count("list", "jobs")
    seen = runner.observe(planned, wait=True)
    while seen.phase is Phase.RUNNING:
        seen = runner.observe(planned, wait=True)
    assert seen.phase is Phase.SUCCEEDED
    assert cluster.api.count("list", "jobs") == lists, "some forty bookmarks, and none was taken for a change"
