"""What people do to a cluster from their own machine: run one stage, start a run, look, follow, cancel."""

from __future__ import annotations

import secrets
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from jobs.pipeline.cluster.api import ClusterApi
from jobs.pipeline.cluster.connection import connect
from jobs.pipeline.cluster.following import follow_job
from jobs.pipeline.cluster.machines import machine_count, machines_of, spread_job
from jobs.pipeline.cluster.pods import by_age
from jobs.pipeline.cluster.templates import (
    APP_NAME,
    COMPONENT_LABEL,
    NAME_LABEL,
    RUN_ID_ANNOTATION,
    RUN_LABEL,
    STAGE_LABEL,
    has_ended,
    pipeline_job,
    stage_job,
)
from jobs.pipeline.cluster.volumes import claims_of, warn_of_claims
from pipeline_common.config import Config, load_config
from pipeline_common.errors import ConfigError, InputError, TransientError
from pipeline_common.provenance import REPOSITORY
from pipeline_common.stages import check_run_id, find_stage

MANIFEST: Final = REPOSITORY / "k8s" / "pipeline.yaml"
# A person waits: a server that is away for longer is away.
_PATIENCE_S: Final = 3.0
_FULL_PROFILE: Final = "llama3-8b"
_CONFIG_MAP: Final = "pipeline-config"
_CONFIG_KEY: Final = "config.yaml"
Json = dict[str, Any]


def open_cluster(instead: str) -> ClusterApi:
    """The current context's cluster, if it answers.

    Args:
        instead: what to do on this machine without a cluster.

    Raises:
        ConfigError: no context.
        TransientError: nobody answers there.
    """
    advice = f"`make kind-up` makes a cluster on this machine; `{instead}` does it here without one"
    try:
        connection = connect()
    except ConfigError as error:
        raise ConfigError(f"{error}; {advice}") from error
    api = ClusterApi(connection, patience_s=_PATIENCE_S)
    try:
        api.list("cronjobs", labelSelector=f"{NAME_LABEL}={APP_NAME}", limit="1")
    except TransientError as error:
        raise TransientError(f"no cluster answers at the context {connection.name} ({api.host}); {advice}") from error
    return api


def run_stage_job(
    stage: str, config: str | None, overrides: Sequence[str], run_id: str | None, *, force: bool, follow: bool
) -> int:
    """Run one stage as a Job and follow it; its exit code.

    Args:
        stage: the stage.
        config: profile or file in the image in place of the template's; None keeps the template's.
        overrides: settings after it.
        run_id: name of the run; None = made from the configuration.
        force: run although the artifact is there.
        follow: wait for the end.
    """
    found = find_stage(stage)
    # Before anything is asked: a mistyped key, or a value no profile would take.
    load_config(config or _FULL_PROFILE, overrides)
    check_run_id(run_id or "any")
    api = open_cluster(f"make run STAGE={stage}")
    template = api.get("cronjobs", stage)
    if template is None:
        raise InputError(
            f"namespace {api.namespace} of the context {api.connection.name} has no CronJob {stage!r}, the template of "
            "the stage's Job; kubectl apply -f k8s/services.yaml, then kubectl apply -f k8s/pipeline.yaml"
        )
    extra = [*(["--config", config] if config else []), *overrides]
    extra += [*(["--run-id", run_id] if run_id else []), *(["--force"] if force else [])]
    annotations = {RUN_ID_ANNOTATION: run_id} if run_id else {}
    job = stage_job(template, stage, secrets.token_hex(4), None, extra_arguments=extra, annotations=annotations)
    job = spread_job(job, found, machines_of(_read_config(api, config, overrides)))
    _warn_of_volumes(api, template, machine_count(job))
    name = api.create("jobs", job)["metadata"]["name"]
    container = job["spec"]["template"]["spec"]["containers"][0]
    sys.stderr.write(f"Job {name} in {api.namespace} of {api.connection.name}: {shlex.join(container['args'])}\n")
    if not follow:
        return 0
    try:
        return follow_job(api, name)
    except KeyboardInterrupt:
        sys.stderr.write(
            f"\nJob {name} goes on; follow it with `make logs STAGE={stage}`, end it with `make cancel STAGE={stage}`\n"
        )
        raise


def start_pipeline(
    config: str | None, overrides: Sequence[str], run_id: str | None, *, force: bool, manifest: Path = MANIFEST
) -> int:
    """Create another pipeline Job from `k8s/pipeline.yaml`: a new run beside those that are there."""
    load_config(config or _FULL_PROFILE, overrides)
    check_run_id(run_id or "any")
    api = open_cluster("make run")
    template = _pipeline_template(manifest)
    extra = [*(["--config", config] if config else []), *overrides]
    extra += [*(["--run-id", run_id] if run_id else []), *(["--force"] if force else [])]
    name = f"pipeline-{secrets.token_hex(4)}"
    stage_template = api.get("cronjobs", "train")
    if stage_template is not None:
        _warn_of_volumes(api, stage_template, machines_of(_read_config(api, config, overrides)).nodes)
    api.create("jobs", pipeline_job(template, name, extra))
    sys.stdout.write(f"Job {name} created in {api.namespace} of {api.connection.name}; make status, make logs\n")
    return 0


def follow_logs(stage: str | None, index: int | None = None) -> int:
    """Follow the newest Job of a stage, or of the pipeline; the exit code it ends with.

    Args:
        stage: None = the pipeline.
        index: which of the stage's machines; None = 0.
    """
    if stage is not None:
        find_stage(stage)
    api = open_cluster(f"less output/latest/{stage or 'analyze'}/logs/stage.log")
    selector = f"{STAGE_LABEL}={stage}" if stage else f"{COMPONENT_LABEL}=pipeline"
    jobs = by_age(api.list("jobs", labelSelector=selector)["items"])
    if not jobs:
        raise InputError(
            f"namespace {api.namespace} of {api.connection.name} has no Job of {stage or 'the pipeline'}; make status"
        )
    return follow_job(api, jobs[-1]["metadata"]["name"], index=index)


def cancel(stage: str | None, run: str | None) -> int:
    """Delete unfinished Jobs: pipelines with all their stages, or single Jobs of one stage.

    Args:
        stage: only Jobs of this stage that belong to no pipeline; None = pipelines.
        run: only the run with these first characters of its uid or this run id.
    """
    if stage is not None:
        find_stage(stage)
    api = open_cluster("Ctrl-C")
    selector = f"{STAGE_LABEL}={stage}" if stage else f"{COMPONENT_LABEL}=pipeline"
    found = [job for job in api.list("jobs", labelSelector=selector)["items"] if not has_ended(job)]
    if stage:
        found = [job for job in found if not job["metadata"].get("ownerReferences")]
    if run:
        found = [job for job in found if run in {run8_of(job), job["metadata"]["name"], run_id_of(job)}]
    for job in found:
        api.delete("jobs", job["metadata"]["name"])
        sys.stdout.write(f"Job {job['metadata']['name']} deleted\n")
    if not found:
        sys.stdout.write(f"nothing to cancel in namespace {api.namespace} of {api.connection.name}\n")
    return 0


def _read_config(api: ClusterApi, config: str | None, overrides: Sequence[str]) -> Config:
    """The configuration a Job will have: the one given, else the cluster's own, which the templates name."""
    found = None if config else api.get("configmaps", _CONFIG_MAP)
    if found is None:
        return load_config(config or _FULL_PROFILE, overrides)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / _CONFIG_KEY
        path.write_text(found.get("data", {}).get(_CONFIG_KEY, ""), encoding="utf-8")
        return load_config(str(path), overrides)


def _warn_of_volumes(api: ClusterApi, template: Json, nodes: int) -> None:
    """Say it when the machines of a stage could not all mount what its CronJob mounts."""
    if nodes == 1:
        return
    names = claims_of(template["spec"]["jobTemplate"]["spec"]["template"]["spec"])
    claims = [claim for name in names if (claim := api.get("persistentvolumeclaims", name)) is not None]
    told = warn_of_claims(nodes, claims)
    if told:
        sys.stderr.write(f"{told}\n")


def _pipeline_template(path: Path) -> Json:
    """The Job `pipeline` of the rendered manifest.

    Raises:
        InputError: no such file, or no such Job in it.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing; a new run is made from the Job in it")
    documents = yaml.safe_load_all(path.read_text(encoding="utf-8"))
    for document in documents:
        if document and document["kind"] == "Job" and document["metadata"]["name"] == "pipeline":
            return dict(document)
    raise InputError(f"{path} holds no Job `pipeline`; render it again")


def run8_of(job: Json) -> str:
    """First eight characters of the uid of the Job `pipeline` that made it, or of its own."""
    return str(job["metadata"].get("labels", {}).get(RUN_LABEL) or job["metadata"]["uid"][:8])


def run_id_of(job: Json) -> str:
    """Name of its run; empty when it does not say."""
    return str(job["metadata"].get("annotations", {}).get(RUN_ID_ANNOTATION, ""))
