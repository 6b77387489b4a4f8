"""Runs on a cluster at a glance: each stage's Job, why it waits, how far it has come."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from jobs.pipeline.cluster.api import ClusterApi
from jobs.pipeline.cluster.commands import Json, run8_of, run_id_of
from jobs.pipeline.cluster.following import container_of
from jobs.pipeline.cluster.pods import by_age
from jobs.pipeline.cluster.reasons import observe_job
from jobs.pipeline.cluster.templates import (
    APP_NAME,
    COMPONENT_LABEL,
    NAME_LABEL,
    STAGE_LABEL,
    has_ended,
)
from jobs.pipeline.machine import Phase
from pipeline_common.errors import PipelineError
from pipeline_common.stages import STAGE_NAMES

_LOG_LINES: Final = 5


def read_cluster_status(api: ClusterApi) -> dict[str, Any]:
    """Every run's stages, and why the one that waits does so."""
    found = api.list("jobs", labelSelector=f"{NAME_LABEL}={APP_NAME}")["items"]
    # The services have a Job, too: it makes their Secrets.
    jobs = [job for job in found if STAGE_LABEL in job["metadata"]["labels"] or _is_pipeline(job)]
    runs = []
    for run8, members in _by_run(jobs).items():
        pipeline = [job for job in members if _is_pipeline(job)]
        stages = {job["metadata"]["labels"][STAGE_LABEL]: job for job in members if job not in pipeline}
        told = []
        for stage in STAGE_NAMES:
            if stage in stages:
                told.append(
                    {"stage": stage, "job": stages[stage]["metadata"]["name"], "told": _state(api, stages[stage])}
                )
            elif pipeline:
                told.append({"stage": stage, "job": None, "told": "no Job: cached, or not reached"})
        runs.append(
            {
                "run8": run8,
                "run_id": next((found for job in members if (found := run_id_of(job))), ""),
                "pipeline": pipeline[0]["metadata"]["name"] if pipeline else None,
                "told": _state(api, pipeline[0]) if pipeline else "",
                "stages": told,
            }
        )
    return {"context": api.connection.name, "namespace": api.namespace, "runs": runs}


def print_cluster_status(status: Mapping[str, Any]) -> None:
    """Write what `read_cluster_status` found to stdout, for people; or why there is nothing (`none`)."""
    if "none" in status:
        sys.stdout.write(f"Cluster: {status['none']}\n")
        return
    sys.stdout.write(f"Cluster {status['context']}, namespace {status['namespace']}:\n")
    if not status["runs"]:
        sys.stdout.write("  no Jobs of the pipeline; kubectl apply -f k8s/pipeline.yaml starts a run\n")
    for run in status["runs"]:
        named = f", run {run['run_id']}" if run["run_id"] else ""
        state = f": {run['told']}" if run["told"] else ""
        sys.stdout.write(f"  {run['run8']}  {run['pipeline'] or 'single Jobs'}{named}{state}\n")
        for stage in run["stages"]:
            sys.stdout.write(f"    {stage['stage']:<12} {stage['told']}\n")


def find_progress(lines: Iterable[str]) -> str | None:
    """The newest line of a stage's log that says how far a loop is, without the stage's name; None = none does."""
    found = None
    for line in lines:
        found = _progress_of(line) or found
    return found


def _progress_of(line: str) -> str | None:
    if line.startswith("{"):
        try:
            entry = json.loads(line)
        except ValueError:
            return None
        return str(entry["message"]) if "progress" in entry else None
    words = line.split(maxsplit=1)
    told = words[1] if len(words) == 2 and words[0] in STAGE_NAMES else ""
    what, _, rest = told.partition(": ")
    done, of, *more = [*rest.split(), "", ""]
    return told if what and done.isdigit() and of == "of" and more and more[0].isdigit() else None


def _is_pipeline(job: Json) -> bool:
    return bool(job["metadata"]["labels"].get(COMPONENT_LABEL) == "pipeline")


def _by_run(jobs: Sequence[Json]) -> dict[str, list[Json]]:
    """Jobs by the eight characters of their run, newest run first."""
    runs: dict[str, list[Json]] = {}
    for job in reversed(by_age(jobs)):
        runs.setdefault(run8_of(dict(job)), []).append(dict(job))
    return runs


def _state(api: ClusterApi, job: Json) -> str:
    name = job["metadata"]["name"]
    if observe_job(job).phase is Phase.SUCCEEDED:
        return "complete"
    pods = by_age(api.list("pods", labelSelector=f"batch.kubernetes.io/job-name={name}")["items"])
    uid = pods[-1]["metadata"]["uid"] if pods else job["metadata"]["uid"]
    events = [] if has_ended(job) else api.list("events", fieldSelector=f"involvedObject.uid={uid}")["items"]
    seen = observe_job(job, pods, events)
    if seen.phase is Phase.FAILED:
        return f"failed: {seen.why}"
    running = [pod for pod in pods if pod["status"].get("phase") == "Running"]
    if seen.phase is not Phase.RUNNING or not running or STAGE_LABEL not in job["metadata"].get("labels", {}):
        return seen.why
    try:
        progress = find_progress(
            api.read_log(running[-1]["metadata"]["name"], container_of(job), tail_lines=_LOG_LINES)
        )
    except PipelineError:
        # The pod has gone meanwhile, or its log may not be read: the state above stands by itself.
        progress = None
    return f"{seen.why}: {progress}" if progress else seen.why
