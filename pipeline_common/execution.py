"""One attempt at a stage: verify the inputs, run, write rows, publish, the manifest last.

Used by every stage's own process, and by the pipeline for stages whose artifact is already there.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from functools import partial

from pipeline_common import provenance
from pipeline_common.attempt_folder import LOG_FILE, clear_files, count_attempt, only_one
from pipeline_common.clock import PhaseClock
from pipeline_common.config import flatten
from pipeline_common.context import Context, Outputs
from pipeline_common.database import write_rows
from pipeline_common.database.lock import LockLostError, StageLock, hold_stage
from pipeline_common.errors import EXIT_INTERRUPTED, InputError, PipelineError, TerminatedError
from pipeline_common.explaining import explain, why_not_cached
from pipeline_common.json_logs import FIELDS
from pipeline_common.logs import get_logger, start_file, stop_file
from pipeline_common.manifest import InputEntry, Manifest, list_files
from pipeline_common.members import find_member
from pipeline_common.memory import peak_memory
from pipeline_common.progress import PROGRESS_FILE, tell_progress
from pipeline_common.recording import (
    is_recorded,
    is_running,
    prepare_database,
    record_state,
    remember_artifact,
    write_artifact_rows,
)
from pipeline_common.redaction import environment_secrets, scrub
from pipeline_common.stages import Plan, PlannedStage
from pipeline_common.termination import StopSignal
from pipeline_common.workplace import Workplace

Run = Callable[[Context], Outputs]
_log = get_logger(__name__)


def run_stage(place: Workplace, plan: Plan, planned: PlannedStage, run: Run, *, force: bool) -> Manifest:
    """Run a stage unless its artifact is there; either way the run's rows are in the database afterwards."""
    name = planned.stage.name
    with (
        only_one(place.output / "work" / f"{name}-{planned.fingerprint}.lock"),
        hold_stage(place.database, plan.run_id, name, planned.key) as lock,
    ):
        prepare_database(place, plan, planned)
        cached = None if force else find_finished(place, planned)
        if cached is not None:
            reuse(place, plan, planned, cached)
            return cached
        if not force:
            _log.info("not cached: %s", why_not_cached(place.store, planned))
        return _attempt(place, plan, planned, run, lock)


def work_along(place: Workplace, plan: Plan, planned: PlannedStage, run: Run, *, force: bool = False) -> None:
    """Do one machine's part of a stage that another leads: no lock, no rows, nothing published.

    Does nothing when the artifact is there already: the leader had finished before this machine started (again).
    """
    if not force and find_finished(place, planned) is not None:
        _log.info("%s is there already", planned.key)
        return
    member = find_member(place.config, planned.stage)
    work_dir = place.output / "work" / f"{planned.stage.name}-{planned.fingerprint}-member-{member.index}"
    files = work_dir / "files"
    attempt = count_attempt(work_dir)
    clear_files(files)
    handler = start_file(files / LOG_FILE)
    stop = StopSignal()
    stop.install()
    try:
        _log.info("machine %d of %d of %s, run %s", member.index, member.nodes, planned.key, plan.run_id)
        run(
            Context(
                config=place.config,
                plan=plan,
                planned=planned,
                store=place.store,
                database=place.database,
                inputs=_open_inputs(place, plan, planned),
                work_dir=work_dir,
                files=files,
                stop=stop,
                attempt=attempt,
                member=member,
            )
        )
    finally:
        stop_file(handler)
    shutil.rmtree(work_dir)


def find_finished(place: Workplace, planned: PlannedStage) -> Manifest | None:
    """The stage's artifact, every file compared with its sha256; None when it is absent or damaged.

    A stage can make its own artifact again; only the readers of a damaged one must stop.
    """
    try:
        manifest = place.store.read_manifest(planned.key)
        if manifest is not None:
            place.store.open(manifest)
    except InputError as error:
        _log.warning("%s", error)
        place.store.withdraw(planned.key)
        return None
    return manifest


def reuse(place: Workplace, plan: Plan, planned: PlannedStage, manifest: Manifest) -> None:
    """Take a finished artifact (from `find_finished`) into this run."""
    if not is_recorded(place, plan, planned):
        write_artifact_rows(place, plan, place.store.locate(manifest))
        attempt, code = manifest.provenance.get("attempt", 1), asked_exit_code(manifest)
        record_state(place, plan, planned, "cached", attempt, started=provenance.now(), ended=True, exit_code=code)
    remember_artifact(place, plan, planned, manifest)
    _log.info("cached: %s, made %s by run %s", manifest.key, manifest.provenance.get("ended", "?"), manifest.run_id)


def asked_exit_code(manifest: Manifest) -> int:
    """What the process of a finished stage ends with: 0, or what the stage asked for (a gate)."""
    return int(manifest.summary.get("exit_code", 0))


def finish_run(place: Workplace) -> dict[str, int]:
    """After the last stage: everything in the database as one SQLite file, `centralized.db`; rows by table."""
    from pipeline_common.sqlite_export import export_sqlite

    return export_sqlite(place.database, place.output / "centralized.db")


def _attempt(place: Workplace, plan: Plan, planned: PlannedStage, run: Run, lock: StageLock) -> Manifest:
    work_dir = place.output / "work" / f"{planned.stage.name}-{planned.fingerprint}"
    files = work_dir / "files"
    attempt = count_attempt(work_dir)
    clear_files(files)
    started = provenance.now()
    handler = start_file(files / LOG_FILE)
    stop = StopSignal()
    stop.install()
    is_unchanged = partial(is_running, place, plan, planned, attempt, started)
    try:
        _log.info("attempt %d of %s for run %s", attempt, planned.key, plan.run_id)
        # Now, not for the manifest alone: a failed attempt's log says where it ran, too.
        _log.debug("on %s", provenance.describe_machine())
        record_state(place, plan, planned, "running", attempt, started=started)
        clock = PhaseClock()
        with clock.phase("opening the inputs", "transfer"):
            inputs = _open_inputs(place, plan, planned)
        context = Context(
            config=place.config,
            plan=plan,
            planned=planned,
            store=place.store,
            database=place.database,
            inputs=inputs,
            work_dir=work_dir,
            files=files,
            stop=stop,
            attempt=attempt,
            member=find_member(place.config, planned.stage),
            is_current=partial(is_unchanged, patient=False),
            clock=clock,
        )
        with tell_progress(planned.stage.name, work_dir / PROGRESS_FILE):
            outputs = run(context)
        with clock.phase("rows into the artifact", "rows"):
            for table, rows in outputs.rows.items():
                write_rows(files / "rows" / f"{table}.jsonl", rows)
        told = ", ".join(f"{name} {value}" for name, value in flatten(outputs.summary).items() if _is_brief(name))
        _log.info("done: %s", told, extra={FIELDS: {"done": outputs.summary}})
        handler.flush()
        lock.require(is_unchanged)
        with clock.phase("rows into the database", "rows"):
            write_artifact_rows(place, plan, files)
        # It is one of the files: from here on it must stay as the manifest lists it.
        stop_file(handler)
        with clock.phase("checksums", "transfer"):
            listed = list_files(files)
        manifest = Manifest(
            stage=planned.stage.name,
            fingerprint=planned.fingerprint,
            payload=json.loads(json.dumps(planned.payload)),
            run_id=plan.run_id,
            files=listed,
            inputs={
                name: InputEntry(key=found.key, manifest_sha256=found.digest())
                for name, found in context.inputs.items()
            },
            summary=json.loads(json.dumps(outputs.summary)),
            degradations=outputs.degradations,
            provenance=provenance.collect(started, attempt) | {"phases": clock.record(), **peak_memory()},
        )
        lock.require(is_unchanged)
        with clock.phase("publishing", "transfer"):
            place.store.publish(files, manifest)
    except BaseException as error:
        if handler not in logging.getLogger().handlers:
            # Publishing failed: this attempt's files will not be an artifact, and its log may go on.
            handler = start_file(files / LOG_FILE)
        _log_failure(place, plan, planned, attempt, started, error)
        raise
    finally:
        stop_file(handler)
    code = asked_exit_code(manifest)
    record_state(place, plan, planned, "done", attempt, started=started, ended=True, exit_code=code)
    remember_artifact(place, plan, planned, manifest, published_in_s=clock.seconds["publishing"])
    outputs.when_published()
    shutil.rmtree(work_dir)
    return manifest


def _log_failure(
    place: Workplace, plan: Plan, planned: PlannedStage, attempt: int, started: str, error: BaseException
) -> None:
    """Put the reason into the attempt's log and the stage's row; never hide the error itself."""
    explained = explain(error)
    if isinstance(explained, PipelineError):
        _log.debug("failed: %s", explained, exc_info=error)
    else:
        _log.debug("failed unexpectedly", exc_info=error)
    _log.info(
        "the full log of this attempt is %s",
        place.output / "work" / f"{planned.stage.name}-{planned.fingerprint}" / "files" / LOG_FILE,
    )
    if isinstance(error, LockLostError):
        return
    state = "stopped" if isinstance(error, TerminatedError | KeyboardInterrupt) else "failed"
    code, message = (explained.exit_code if isinstance(explained, PipelineError) else 1), str(explained)
    if isinstance(error, KeyboardInterrupt):
        code, message = EXIT_INTERRUPTED, "interrupted"
    try:
        record_state(
            place,
            plan,
            planned,
            state,
            attempt,
            started=started,
            ended=True,
            exit_code=code,
            message=scrub(message, environment_secrets()),
            patient=False,
        )
    except PipelineError as second:
        # The database may be the very thing that failed; the first error is the one to show.
        _log.warning("could not record the failure: %s", second)


def _is_brief(name: str) -> bool:
    """Whether a fact of a stage's summary is for the console: sentences and seconds have places of their own."""
    return name != "headline" and not name.startswith("seconds.")


def _open_inputs(place: Workplace, plan: Plan, planned: PlannedStage) -> dict[str, Manifest]:
    found: dict[str, Manifest] = {}
    for entry in planned.stage.inputs:
        wanted = plan.stages[entry.stage]
        manifest = place.store.read_manifest(wanted.key)
        if manifest is None:
            raise InputError(
                f"{planned.stage.name} needs the artifact {wanted.key}, which is not in {place.store.uri}; run "
                f"python -m jobs.{entry.stage} --config {place.config.profile} with the same settings first"
            )
        place.store.open(manifest)
        found[entry.stage] = manifest
    return found
