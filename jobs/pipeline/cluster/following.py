"""Following a Job from outside: what it waits for, its log across broken connections and attempts, its exit code."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from jobs.pipeline.cluster.api import ClusterApi
from jobs.pipeline.cluster.machines import index_of, machine_count
from jobs.pipeline.cluster.pods import by_age
from jobs.pipeline.cluster.reasons import observe_job
from jobs.pipeline.cluster.templates import PIPELINE_CONTAINER, STAGE_CONTAINER, STAGE_LABEL
from jobs.pipeline.machine import Phase
from pipeline_common.errors import ConfigError

_POLL_S: Final = 2.0
# A Job without an exit code of its own: deleted, past its deadline, never started.
EXIT_NO_CODE: Final = 3
_STARTED: Final = {"Running", "Succeeded", "Failed"}


def follow_job(api: ClusterApi, name: str, *, index: int | None = None, poll_s: float = _POLL_S) -> int:
    """Write a Job's log to stdout, and what it waits for to stderr, until it ends.

    Args:
        api: the cluster.
        name: the Job's.
        index: which of several machines' log; None = 0, the one that leads.
        poll_s: time between two looks.

    Returns:
        0, or the exit code of the container that is to blame, or `EXIT_NO_CODE`.

    Raises:
        ConfigError: the Job has no such machine.
    """
    followed: dict[str, str] = {}
    told = ""
    chosen: int | None = None
    while True:
        job = api.get("jobs", name)
        if job is None:
            sys.stderr.write(f"Job {name} was deleted\n")
            return EXIT_NO_CODE
        if chosen is None:
            chosen = _choose_machine(job, index)
        pods = _pods(api, name)
        started = [pod for pod in by_age(pods) if pod["status"].get("phase") in _STARTED and index_of(pod) == chosen]
        for pod in started:
            _follow_pod(api, pod, container_of(job), followed)
        seen = observe_job(job, pods, _events(api, job, pods) if not started else ())
        if seen.phase is Phase.SUCCEEDED:
            return 0
        if seen.phase is Phase.FAILED:
            assert seen.failure is not None, "a failed Job has its failure"
            sys.stderr.write(f"{name} {seen.failure.reason}\n")
            return seen.failure.exit_code or EXIT_NO_CODE
        if seen.why != told:
            sys.stderr.write(f"{name}: {seen.why}\n")
            told = seen.why
        time.sleep(poll_s)


def _choose_machine(job: dict[str, Any], index: int | None) -> int:
    """The machine whose log is followed; says so where there are others."""
    name, count = job["metadata"]["name"], machine_count(job)
    if index is not None and index >= count:
        known = f"indexes 0 to {count - 1}" if count > 1 else "one machine, index 0"
        raise ConfigError(f"Job {name} has no machine with index {index}: it has {known}")
    if count > 1:
        stage = job["metadata"].get("labels", {}).get(STAGE_LABEL, "")
        others = f"make logs STAGE={stage} INDEX=0 ... {count - 1} shows the others"
        sys.stderr.write(f"{name} runs on {count} machines; this is the log of index {index or 0}, {others}\n")
    return index or 0


def container_of(job: dict[str, Any]) -> str:
    """Which container of a Job's pods writes its log."""
    return STAGE_CONTAINER if STAGE_LABEL in job["metadata"].get("labels", {}) else PIPELINE_CONTAINER


def _follow_pod(
    api: ClusterApi,
    pod: Mapping[str, Any],
    container: str,
    followed: dict[str, str],
    write: Callable[[str], object] = sys.stdout.write,
) -> None:
    """Write the lines that have not been written yet; comes back when the connection or the container ends.

    Args:
        api: the cluster.
        pod: whose log.
        container: of the pod.
        followed: pod -> time stamp of the last line written.
        write: takes a line with its end.
    """
    name = pod["metadata"]["name"]
    for stamped in api.follow_log(name, container, followed.get(name)):
        stamp, _, line = stamped.partition(" ")
        # The API looks back by whole seconds, so lines come twice; their stamps tell.
        if stamp > followed.get(name, ""):
            write(f"{line}\n")
            sys.stdout.flush()
            followed[name] = stamp


def _pods(api: ClusterApi, job: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = api.list("pods", labelSelector=f"batch.kubernetes.io/job-name={job}")["items"]
    return items


def _events(api: ClusterApi, job: dict[str, Any], pods: list[dict[str, Any]]) -> list[dict[str, Any]]:
    about = by_age(pods)[-1] if pods else job
    items: list[dict[str, Any]] = api.list("events", fieldSelector=f"involvedObject.uid={about['metadata']['uid']}")[
        "items"
    ]
    return items
