"""What the machines of an Indexed Job wait for and which one made it fail, from the API's objects alone."""

from __future__ import annotations

import pytest

from jobs.pipeline.cluster.reasons import observe_job
from jobs.pipeline.machine import Phase
from tests.pipeline.cluster.made_objects import EVENT, UNSCHEDULED, ended, job, pod, waiting


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
