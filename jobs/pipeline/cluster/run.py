"""The pipeline's own Job: every stage in order, each as a Job of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jobs.pipeline.cluster.apart import SeparateResults
from jobs.pipeline.cluster.api import ClusterApi
from jobs.pipeline.cluster.connection import connect
from jobs.pipeline.cluster.machines import machines_of
from jobs.pipeline.cluster.runner import KubernetesRunner, refuse_second_run
from jobs.pipeline.cluster.templates import Owner
from jobs.pipeline.machine import Failure, run_stages
from jobs.pipeline.results import RemoteResults
from pipeline_common.errors import ConfigError, PipelineError
from pipeline_common.logs import get_logger
from pipeline_common.termination import StopSignal
from pipeline_common.workplace import open_workplace

if TYPE_CHECKING:
    from pipeline_common.config import Config
    from pipeline_common.stages import Plan

# A stage that failed has had its own attempts: the pipeline's Job ends instead of trying all of it again.
EXIT_STAGE_FAILED: Final = 3
_TERMINATION_LOG: Final = Path("/dev/termination-log")
_log = get_logger(__name__)


def run_on_cluster(config: Config, plan: Plan, command: Sequence[str], *, force: bool) -> int:
    """Run every stage that is not finished as a Job; stop at the first that fails.

    SIGTERM ends this process and nothing else: the Job controller starts it again, and it adopts what it finds.
    """
    began = time.monotonic()
    owner = _owner()
    _require_stores()
    signals = StopSignal()
    signals.install()
    try:
        api = ClusterApi(connect())
        _log.info("run %s as %s in namespace %s of %s", plan.run_id, owner.run8, api.namespace, api.connection.name)
        refuse_second_run(api, owner, plan.run_id)
        results = SeparateResults(lambda: RemoteResults(open_workplace(config), plan))
        results.begin()
        arguments = [*command, *(["--force"] if force else [])]

        def before_waiting() -> None:
            # What SIGTERM raised may have been caught: in a finalizer that ran while an answer was read, say.
            signals.heed()
            results.rest()

        runner = KubernetesRunner(
            api, owner, plan.run_id, arguments, before_waiting=before_waiting, machines=machines_of(config)
        )
        seconds, failure = run_stages(plan, runner, results, force=force)
        if failure is None:
            return results.finish(seconds, time.monotonic() - began)
    except PipelineError as error:
        _leave_word(str(error))
        raise
    _leave_word(_tell(failure))
    return EXIT_STAGE_FAILED


def _tell(failure: Failure) -> str:
    """The failure as the last thing this process says."""
    lines = [*(f"  | {line}" for line in failure.log)]
    if failure.message and not failure.log:
        lines = [f"  | {line}" for line in failure.message.splitlines()]
    where = f" (Job {failure.job}, {failure.condition or 'failed'})" if failure.job else ""
    told = f"{failure.stage} {failure.reason}{where}; later stages were not started"
    if lines:
        _log.error("the last lines of %s:\n%s", failure.pod, "\n".join(lines))
    _log.error("%s", told)
    return told


def _leave_word(text: str) -> None:
    """Show the reason in the pod's status too, where `kubectl describe` finds it."""
    if _TERMINATION_LOG.is_file() and os.access(_TERMINATION_LOG, os.W_OK):
        _TERMINATION_LOG.write_text(text[:4000], encoding="utf-8")


def _owner() -> Owner:
    name, uid = os.environ.get("PIPELINE_JOB_NAME"), os.environ.get("PIPELINE_JOB_UID")
    if not name or not uid:
        raise ConfigError(
            "--runner kubernetes runs inside the Job `pipeline`, which tells it its name and uid (PIPELINE_JOB_NAME, "
            "PIPELINE_JOB_UID); from outside the cluster: kubectl apply -f k8s/pipeline.yaml, or make pipeline"
        )
    return Owner(name, uid)


def _require_stores() -> None:
    missing = [name for name in ("ARTIFACTS_URI", "DATABASE_URL") if not os.environ.get(name)]
    if missing:
        raise ConfigError(
            f"{' and '.join(missing)} not set: stages in different pods can only meet in a bucket and a database; the "
            "Secret `pipeline-storage` must hold both (k8s/services.yaml makes one)"
        )
