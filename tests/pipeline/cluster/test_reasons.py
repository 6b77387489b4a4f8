"""What a Job waits for and why it failed, from the API's objects alone."""

from __future__ import annotations

import pytest

from jobs.pipeline.cluster.reasons import observe_job
from jobs.pipeline.machine import Phase
from tests.pipeline.cluster.made_objects import EVENT, UNSCHEDULED, ended, job, pod, waiting


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


def test_a_job_that_is_being_suspended_is_told_so_before_its_condition_is_there():
    seen = job(ready=1)
    seen["spec"]["suspend"] = True
    assert observe_job(seen, [pod("Running")]).why == "queued: suspended by its queue until there is quota for it"
