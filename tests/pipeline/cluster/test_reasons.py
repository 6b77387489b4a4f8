"""What a Job waits for and why it failed, from the API's objects alone."""

from __future__ import annotations

import pytest

from jobs.pipeline.cluster.pods import blocked_by, last_ended, seconds_since
from jobs.pipeline.cluster.reasons import observe_job
from jobs.pipeline.machine import Phase


def job(*conditions: tuple[str, str], **status) -> dict:
    found = [{"type": kind, "status": "True", "reason": reason, "message": "told"} for kind, reason in conditions]
    return {
        "metadata": {"name": "train-0123abcd", "uid": "1", "labels": {"alignment-pipeline/stage": "train"}},
        "spec": {"activeDeadlineSeconds": 60},
        "status": {"conditions": found, **status},
    }


def pod(
    phase: str = "Pending", name: str = "train-0123abcd-x", created: str = "2026-01-01T00:00:00Z", **status
) -> dict:
    return {
        "metadata": {"name": name, "uid": name, "creationTimestamp": created},
        "spec": {"nodeName": "gpu-node-1"},
        "status": {"phase": phase, **status},
    }


def ended(code: int, reason: str = "Error", at: str = "2026-01-01T00:01:00Z", message: str = "last words") -> dict:
    state = {"exitCode": code, "reason": reason, "finishedAt": at, "message": message}
    return {"containerStatuses": [{"name": "stage", "state": {"terminated": state}}]}


def waiting(reason: str, message: str = "why") -> dict:
    return {"containerStatuses": [{"name": "stage", "state": {"waiting": {"reason": reason, "message": message}}}]}


UNSCHEDULED = {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1"}]}
EVENT = {"type": "Warning", "reason": "FailedMount", "message": "secret not found\n", "lastTimestamp": "2026-01-01"}


@pytest.mark.parametrize(
    ("seen", "pods", "events", "phase", "why"),
    [
        (None, [], [], Phase.ABSENT, ""),
        (job(("Complete", "CompletionsReached")), [], [], Phase.SUCCEEDED, ""),
        (
            job(("Suspended", "JobSuspended")),
            [],
            [],
            Phase.QUEUED,
            "queued: suspended by its queue until there is quota for it",
        ),
        (
            job(("Suspended", "JobSuspended")),
            [],
            [{"type": "Normal", "reason": "Pending", "message": "no flavor fits"}],
            Phase.QUEUED,
            "(Pending: no flavor fits)",
        ),
        (job(("FailureTarget", "PodFailurePolicy")), [], [], Phase.RUNNING, "its pods are ending"),
        (job(), [], [], Phase.QUEUED, "queued: no pod yet"),
        (job(), [pod("Succeeded", **ended(0, "Completed"))], [], Phase.RUNNING, "its pod has ended well"),
        (job(), [], [EVENT], Phase.QUEUED, "queued: FailedMount: secret not found"),
        (
            job(),
            [],
            [
                {
                    **EVENT,
                    "reason": "FailedCreate",
                    "message": 'pods "train-0123abcd-4lt6v" is forbidden: exceeded quota',
                }
            ],
            Phase.QUEUED,
            'queued: FailedCreate: pods "train-0123abcd-..." is forbidden: exceeded quota',
        ),
        (job(), [pod(**UNSCHEDULED)], [], Phase.QUEUED, "queued: 0/1"),
        (
            job(),
            [pod(**waiting("ImagePullBackOff"))],
            [],
            Phase.QUEUED,
            "the image cannot be pulled (ImagePullBackOff: why)",
        ),
        (
            job(),
            [pod(**waiting("CreateContainerConfigError"))],
            [],
            Phase.QUEUED,
            "a Secret, a ConfigMap or a key of one is missing",
        ),
        (
            job(),
            [pod(**waiting("ContainerCreating"))],
            [EVENT],
            Phase.QUEUED,
            "starting: FailedMount: secret not found",
        ),
        (job(), [pod(**waiting("ContainerCreating"))], [], Phase.QUEUED, "starting: image and volumes"),
        (
            job(),
            [pod(**waiting("ContainerCreating"))],
            [{**EVENT, "reason": "FailedAttachVolume", "message": 'Multi-Attach error for volume "pvc-1"'}],
            Phase.QUEUED,
            'FailedAttachVolume: Multi-Attach error for volume "pvc-1" (one node at a time can mount the '
            "volume: one run on one machine, or accessModes: [ReadWriteMany]",
        ),
        (
            job(),
            [
                pod(
                    conditions=[
                        {**UNSCHEDULED["conditions"][0], "message": "1 node(s) had volume node affinity conflict"}
                    ]
                )
            ],
            [],
            Phase.QUEUED,
            "queued: 1 node(s) had volume node affinity conflict (one node at a time can mount the volume",
        ),
        (job(), [pod("Running")], [], Phase.RUNNING, "running on gpu-node-1"),
        (
            job(failed=1),
            [pod("Failed", "a", **ended(137, "OOMKilled")), pod("Running", "b", "2026-01-01T00:02:00Z")],
            [],
            Phase.RUNNING,
            "attempt 2 (the last one ran out of memory",
        ),
        (job(failed=1), [], [], Phase.QUEUED, "attempt 2 (the last one's pod is gone)"),
    ],
)
def test_where_a_job_is(seen, pods, events, phase, why):
    found = observe_job(seen, pods, events)
    assert found.phase is phase
    assert why in found.why


@pytest.mark.parametrize(
    ("seen", "pods", "code", "reason"),
    [
        (job(("Failed", "PodFailurePolicy"), failed=1), [pod("Failed", **ended(2))], 2, "exit code 2 (configuration"),
        (
            job(("Failed", "BackoffLimitExceeded"), failed=3),
            [
                pod("Failed", "a", **ended(1, at="2026-01-01T00:01:00Z")),
                pod("Failed", "b", **ended(137, "OOMKilled", "2026-01-01T00:09:00Z")),
            ],
            137,
            "ran out of memory (OOMKilled, exit code 137)",
        ),
        (
            job(("Failed", "BackoffLimitExceeded")),
            [pod("Failed", **ended(137))],
            137,
            "ended with SIGKILL with exit code 137",
        ),
        (
            job(("Failed", "BackoffLimitExceeded")),
            [pod("Failed", reason="Evicted", message="disk pressure")],
            None,
            "was evicted from its node: disk pressure",
        ),
        (
            job(("Failed", "BackoffLimitExceeded")),
            [
                pod(
                    "Failed",
                    conditions=[
                        {
                            "type": "DisruptionTarget",
                            "status": "True",
                            "reason": "PreemptionByScheduler",
                            "message": "m",
                        }
                    ],
                )
            ],
            None,
            "was removed from its node (PreemptionByScheduler: m)",
        ),
        (job(("Failed", "DeadlineExceeded")), [], None, "DeadlineExceeded: activeDeadlineSeconds 60"),
        (
            job(("Failed", "DeadlineExceeded")),
            [pod(**waiting("ErrImagePull"))],
            None,
            "it never started: the image cannot be pulled (ErrImagePull: why)",
        ),
        (job(("Failed", "BackoffLimitExceeded")), [], None, "failed: told; its pods are gone"),
    ],
)
def test_why_a_job_failed(seen, pods, code, reason):
    failure = observe_job(seen, pods).failure
    assert failure is not None
    assert failure.stage == "train"
    assert failure.exit_code == code
    assert reason in failure.reason
    assert failure.condition == seen["status"]["conditions"][0]["reason"]


def test_attempts_and_last_words_are_kept():
    failure = observe_job(job(("Failed", "BackoffLimitExceeded"), failed=3), [pod("Failed", **ended(1))]).failure
    assert failure.attempts == 3
    assert failure.reason.endswith(", 3 attempts")
    assert failure.message == "last words"
    assert failure.pod == "train-0123abcd-x"


def test_a_pod_that_only_creates_its_container_is_not_blocked():
    assert blocked_by(pod(**waiting("ContainerCreating"))) is None
    assert blocked_by(pod(**waiting("InvalidImageName"))) == ("InvalidImageName", "why")
    init = {"initContainerStatuses": [{"name": "init", "state": {"waiting": {"reason": "ErrImagePull"}}}]}
    assert blocked_by(pod(**init)) == ("ErrImagePull", "no message")


def test_the_pod_that_ended_last_is_not_the_one_created_last():
    early = pod("Failed", "late-end", "2026-01-01T00:00:00Z", **ended(1, at="2026-01-01T00:09:00Z"))
    late = pod("Failed", "early-end", "2026-01-01T00:05:00Z", **ended(1, at="2026-01-01T00:06:00Z"))
    assert last_ended([early, late]) is early
    assert last_ended([]) is None


def test_seconds_are_counted_in_utc():
    from datetime import UTC, datetime

    assert seconds_since("2026-01-01T00:00:00Z", datetime(2026, 1, 1, 0, 10, tzinfo=UTC)) == 600.0


def indexed(*conditions: tuple[str, str], completions: int = 2, **status) -> dict:
    found = job(*conditions, **status)
    found["spec"] |= {"completionMode": "Indexed", "completions": completions, "parallelism": completions}
    rule = {"action": "FailJob", "onExitCodes": {"containerName": "stage", "operator": "In", "values": [2, 3, 4]}}
    found["spec"]["podFailurePolicy"] = {"rules": [rule]}
    return found


def machine(index: int, phase: str = "Running", failures: int = 0, **status) -> dict:
    found = pod(phase, f"train-0123abcd-{index}-{failures}", f"2026-01-01T00:0{failures}:00Z", **status)
    found["metadata"]["annotations"] = {
        "batch.kubernetes.io/job-completion-index": str(index),
        "batch.kubernetes.io/job-index-failure-count": str(failures),
    }
    return found


@pytest.mark.parametrize(
    ("status", "pods", "phase", "why"),
    [
        ({}, [], Phase.QUEUED, "0/4 machines running; indexes 0, 1, 2, 3 queued: no pod yet"),
        ({}, [machine(index) for index in range(4)], Phase.RUNNING, "4/4 machines running"),
        (
            {},
            [machine(0), machine(1), machine(2, "Pending", **UNSCHEDULED), machine(3, "Pending", **UNSCHEDULED)],
            Phase.QUEUED,
            "2/4 machines running; indexes 2, 3 queued: 0/1",
        ),
        (
            {"completedIndexes": "1-2"},
            [machine(0), machine(3)],
            Phase.RUNNING,
            "2/4 machines running, 2 done",
        ),
        ({"completedIndexes": "0-3"}, [], Phase.RUNNING, "4/4 machines are done"),
        (
            {"completedIndexes": "0,3"},
            [machine(1), machine(2, "Failed", **ended(137, "OOMKilled")), machine(2, failures=1)],
            Phase.RUNNING,
            "2/4 machines running, 2 done; index 2: attempt 2 (the last one ran out of memory (OOMKilled",
        ),
    ],
)
def test_where_the_machines_of_a_job_are(status, pods, phase, why):
    found = observe_job(indexed(completions=4, **status), pods)
    assert found.phase is phase
    assert found.why.startswith(why)


def test_an_event_is_told_of_the_machine_it_is_about():
    about = {**EVENT, "involvedObject": {"uid": "train-0123abcd-1-0"}}
    pods = [machine(index, "Pending", **waiting("ContainerCreating")) for index in range(2)]
    assert observe_job(indexed(), pods, [about]).why == (
        "0/2 machines running; index 0 starting: image and volumes; index 1 starting: FailedMount: secret not found"
    )


POLICY = ("Failed", "PodFailurePolicy")
SPENT = ("Failed", "MaxFailedIndexesExceeded")


@pytest.mark.parametrize(
    ("seen", "pods", "index", "code"),
    [
        # told to stop after the one that failed for good, and later
        (indexed(POLICY), [machine(0, "Failed", **ended(143)), machine(1, "Failed", **ended(3))], 1, 3),
        # the policy's code names the culprit, although another failed earlier and recovered
        (
            indexed(POLICY),
            [
                machine(0, "Failed", **ended(1, at="2026-01-01T00:00:01Z")),
                machine(0, failures=1),
                machine(1, "Failed", **ended(2, at="2026-01-01T00:09:00Z")),
            ],
            1,
            2,
        ),
        # the Job names the index that has no attempt left
        (
            indexed(SPENT, failedIndexes="1"),
            [
                machine(0, "Failed", failures=2, **ended(1, at="2026-01-01T00:01:00Z")),
                machine(1, "Failed", failures=2, **ended(137, "OOMKilled", "2026-01-01T00:02:00Z")),
            ],
            1,
            137,
        ),
        # in the same second: code 1 is what a machine ends with whose partner is gone
        (
            indexed(SPENT, failedIndexes="0,1"),
            [machine(0, "Failed", **ended(1)), machine(1, "Failed", **ended(137, "OOMKilled"))],
            1,
            137,
        ),
        (indexed(SPENT, failedIndexes="0,1"), [machine(0, "Failed", **ended(1)), machine(1)], 0, 1),
    ],
)
def test_which_machine_made_a_job_fail(seen, pods, index, code):
    failure = observe_job(seen, pods).failure
    assert failure is not None
    assert (failure.index, failure.exit_code) == (index, code)
    assert failure.reason.startswith(f"(index {index} of 2 machines) ")


def test_a_deadline_is_no_machines_fault():
    failure = observe_job(indexed(("Failed", "DeadlineExceeded")), [machine(1, "Failed", **ended(143))]).failure
    assert failure is not None
    assert (failure.index, failure.exit_code) == (None, None)
    assert failure.reason.startswith("took longer than its deadline")


def test_a_job_that_is_being_suspended_is_told_so_before_its_condition_is_there():
    seen = job(ready=1)
    seen["spec"]["suspend"] = True
    assert observe_job(seen, [pod("Running")]).why == "queued: suspended by its queue until there is quota for it"
