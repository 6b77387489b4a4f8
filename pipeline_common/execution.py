"""One attempt at a stage: verify the inputs, run, write rows, publish, the manifest last.

Used by every stage's own process, and by the pipeline for stages whose artifact is already there.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline_common import provenance
from pipeline_common.artifacts import ArtifactStore, artifacts_uri, open_store
from pipeline_common.config import Config, flatten
from pipeline_common.context import Context, Outputs
from pipeline_common.database import Database, database_url, read_rows, write_rows
from pipeline_common.errors import ConfigError, InputError, PipelineError, TerminatedError, TransientError
from pipeline_common.logs import get_logger, start_file, stop_file
from pipeline_common.manifest import InputEntry, Manifest, list_files
from pipeline_common.stages import Plan, PlannedStage
from pipeline_common.tables import TABLES
from pipeline_common.termination import StopSignal

Run = Callable[[Context], Outputs]
LOG_FILE = "logs/stage.log"
_log = get_logger(__name__)


@dataclass(frozen=True)
class Workplace:
    """The stores and folders a configuration points at."""

    config: Config
    store: ArtifactStore
    database: Database
    output: Path


def open_workplace(config: Config) -> Workplace:
    """Open the stores; the output folder must be writable.

    Raises:
        ConfigError: an unusable output folder or address.
    """
    output = Path(config.runtime.output_dir).expanduser().resolve()
    try:
        (output / "work").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"runtime.output_dir={config.runtime.output_dir}: {error.strerror or error}; "
            "give a folder this user may write"
        ) from error
    if not os.access(output / "work", os.W_OK):
        raise ConfigError(
            f"runtime.output_dir={config.runtime.output_dir}: not writable; give a folder this user may write"
        )
    return Workplace(
        config=config,
        store=open_store(artifacts_uri(config), config.artifacts, output / "cache"),
        database=Database(database_url(config), config.database.connect_timeout_s),
        output=output,
    )


def run_stage(place: Workplace, plan: Plan, planned: PlannedStage, run: Run, *, force: bool) -> Manifest:
    """Run a stage unless its artifact is there; either way the run's rows are in the database afterwards."""
    with _only_one(place.output / "work" / f"{planned.stage.name}-{planned.fingerprint}.lock"):
        prepare_database(place, plan, planned)
        cached = None if force else find_finished(place, planned)
        if cached is not None:
            reuse(place, plan, planned, cached)
            return cached
        if not force:
            _log.info("not cached: %s", why_not_cached(place.store, planned))
        return _attempt(place, plan, planned, run)


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
    if not _recorded(place, plan, planned):
        _write_artifact_rows(place, plan, place.store.locate(manifest))
        _record(
            place, plan, planned, "cached", manifest.provenance.get("attempt", 1), started=provenance.now(), ended=True
        )
    _remember(place, plan, planned, manifest)
    _log.info("cached: %s, made %s by run %s", manifest.key, manifest.provenance.get("ended", "?"), manifest.run_id)


def finish_run(place: Workplace) -> dict[str, int]:
    """After the last stage: everything in the database as one SQLite file, `centralized.db`; rows by table."""
    from pipeline_common.sqlite_export import export_sqlite

    return export_sqlite(place.database, place.output / "centralized.db")


def why_not_cached(store: ArtifactStore, planned: PlannedStage) -> str:
    """The fields in which this stage differs from the most similar artifact there is."""
    wanted = flatten(planned.payload)
    best: dict[str, tuple[Any, Any]] | None = None
    nearest = ""
    for key in store.list_keys(planned.stage.name):
        try:
            manifest = store.read_manifest(key)
        except InputError as error:
            # Another run's artifact, of use for comparing only: its damage is no reason to stop this one.
            _log.debug("not compared with: %s", error)
            continue
        if manifest is None:
            continue
        found = flatten(manifest.payload)
        fields = wanted.keys() | found.keys()
        differing = {
            field: (found.get(field), wanted.get(field)) for field in fields if found.get(field) != wanted.get(field)
        }
        if best is None or len(differing) <= len(best):
            best, nearest = differing, key
    if best is None:
        return f"no {planned.stage.name} artifact exists yet"
    if not best:
        return f"{nearest} has the same fields"
    changes = {_field_name(field): values for field, values in sorted(best.items())}
    told = "; ".join(f"{field}: {old!r} -> {new!r}" for field, (old, new) in sorted(changes.items()))
    return f"differs from {nearest} in {told}"


def _field_name(path: str) -> str:
    """The setting behind a path of a payload: an input's setting is the same setting, however deep it sits."""
    _, marker, setting = path.rpartition("config.")
    if marker:
        return setting
    _, marker, source = path.rpartition("sources.")
    if marker:
        return f"content of {source.rpartition('.')[0]}"
    *inputs, last = path.split(".inputs.")[-1].removeprefix("inputs.").split(".")
    return f"{last} of {inputs[0]}" if inputs else last


def prepare_database(place: Workplace, plan: Plan, planned: PlannedStage) -> None:
    """Bring or check the schema, and make sure the run's experiment row exists."""
    if planned.stage.name == "environment":
        place.database.migrate()
    else:
        place.database.require_schema()
    config = place.config
    code = provenance.commit()
    row = {
        "run_id": plan.run_id,
        "profile": config.profile,
        "base_model": config.model.base,
        "dataset": config.prepare.dataset,
        "prompts": config.prepare.prompts,
        "code_commit": code["commit"],
        "code_dirty": code["dirty"],
        "config": config.model_dump(mode="json"),
    }
    experiments = TABLES["experiments"]
    import sqlalchemy as sa

    query = sa.select(experiments.c.created_at).where(experiments.c.run_id == plan.run_id)
    known = place.database.select(query)
    created = known[0]["created_at"] if known else provenance.now()
    place.database.upsert("experiments", [{**row, "created_at": created}])


def _attempt(place: Workplace, plan: Plan, planned: PlannedStage, run: Run) -> Manifest:
    work_dir = place.output / "work" / f"{planned.stage.name}-{planned.fingerprint}"
    files = work_dir / "files"
    attempt = _count_attempt(work_dir)
    _clear_files(files)
    started = provenance.now()
    handler = start_file(files / LOG_FILE)
    stop = StopSignal()
    stop.install()
    try:
        _log.info("attempt %d of %s for run %s", attempt, planned.key, plan.run_id)
        _record(place, plan, planned, "running", attempt, started=started)
        context = Context(
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
        )
        outputs = run(context)
        for table, rows in outputs.rows.items():
            write_rows(files / "rows" / f"{table}.jsonl", rows)
        _log.info("done: %s", ", ".join(f"{name} {value}" for name, value in flatten(outputs.summary).items()))
        handler.flush()
        _write_artifact_rows(place, plan, files)
        # It is one of the files: from here on it must stay as the manifest lists it.
        stop_file(handler)
        manifest = Manifest(
            stage=planned.stage.name,
            fingerprint=planned.fingerprint,
            payload=json.loads(json.dumps(planned.payload)),
            run_id=plan.run_id,
            files=list_files(files),
            inputs={
                name: InputEntry(key=found.key, manifest_sha256=found.digest())
                for name, found in context.inputs.items()
            },
            summary=json.loads(json.dumps(outputs.summary)),
            degradations=outputs.degradations,
            provenance=provenance.collect(started, attempt),
        )
        place.store.publish(files, manifest)
    except BaseException as error:
        _log_failure(place, plan, planned, attempt, started, error)
        raise
    finally:
        stop_file(handler)
    _record(place, plan, planned, "done", attempt, started=started, ended=True)
    _remember(place, plan, planned, manifest)
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
    state = "stopped" if isinstance(error, TerminatedError | KeyboardInterrupt) else "failed"
    code = explained.exit_code if isinstance(explained, PipelineError) else 1
    try:
        _record(
            place, plan, planned, state, attempt, started=started, ended=True, exit_code=code, message=str(explained)
        )
    except PipelineError as second:
        # The database may be the very thing that failed; the first error is the one to show.
        _log.warning("could not record the failure: %s", second)


def explain(error: BaseException) -> BaseException:
    """A person's words for failures of the machine that libraries report in their own ways; others unchanged."""
    chain: BaseException | None = error
    while chain is not None:
        code = getattr(chain, "errno", None)
        text = str(chain)
        if code in {errno.ENOSPC, errno.EDQUOT} or "No space left on device" in text or "disk is full" in text:
            return TransientError(
                f"the disk is full ({text}); free some room, or move runtime.output_dir, and run again"
            )
        if code in {errno.EROFS, errno.EACCES} and isinstance(chain, OSError):
            return ConfigError(f"no permission to write: {text}; give a runtime.output_dir this user may write")
        chain = chain.__cause__ or chain.__context__
    return error


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


def _write_artifact_rows(place: Workplace, plan: Plan, folder: Path) -> None:
    """Replace this run's rows by the artifact's."""
    for path in sorted((folder / "rows").glob("*.jsonl")):
        rows = list(read_rows(path))
        if path.stem == "experiments":
            # The row is there since the stage began; this adds what was found out since.
            for row in rows:
                place.database.update_run(path.stem, plan.run_id, row)
            continue
        place.database.delete_rows(path.stem, plan.run_id)
        place.database.upsert(path.stem, [{"run_id": plan.run_id, **row} for row in rows])


def _recorded(place: Workplace, plan: Plan, planned: PlannedStage) -> bool:
    import sqlalchemy as sa

    table = TABLES["stage_runs"]
    query = sa.select(table.c.fingerprint).where(
        table.c.run_id == plan.run_id, table.c.stage == planned.stage.name, table.c.state.in_(("done", "cached"))
    )
    return [row["fingerprint"] for row in place.database.select(query)] == [planned.fingerprint]


def _record(
    place: Workplace,
    plan: Plan,
    planned: PlannedStage,
    state: str,
    attempt: int,
    *,
    started: str,
    ended: bool = False,
    exit_code: int | None = None,
    message: str | None = None,
) -> None:
    finished = state in {"done", "cached"}
    row = {
        "run_id": plan.run_id,
        "stage": planned.stage.name,
        "fingerprint": planned.fingerprint,
        "state": state,
        "attempt": attempt,
        "started_at": started,
        "ended_at": provenance.now() if ended else None,
        "exit_code": 0 if finished else exit_code,
        "message": message,
        "artifact": planned.key if finished else None,
    }
    place.database.upsert("stage_runs", [row])


def _remember(place: Workplace, plan: Plan, planned: PlannedStage, manifest: Manifest) -> None:
    """Note the artifact in the run's record, and link `output/latest/<stage>` to it where it is a local folder."""
    key = f"runs/{plan.run_id}/run.json"
    content = place.store.get_bytes(key)
    record: dict[str, Any] = {"run_id": plan.run_id, "profile": place.config.profile, "stages": {}}
    if content is not None:
        record = json.loads(content)
    record["stages"][planned.stage.name] = {"artifact": planned.key, "manifest_sha256": manifest.digest()}
    place.store.put_bytes(key, (json.dumps(record, indent=2, sort_keys=True) + "\n").encode())
    latest = place.output / "latest"
    latest.mkdir(exist_ok=True)
    partial = latest / f".{planned.stage.name}.{os.getpid()}"
    partial.unlink(missing_ok=True)
    partial.symlink_to(os.path.relpath(place.store.locate(manifest), latest))
    partial.replace(latest / planned.stage.name)
    for left in place.store.list_keys(f"checkpoints/{planned.key}"):
        place.store.withdraw(left)


def _count_attempt(work_dir: Path) -> int:
    work_dir.mkdir(parents=True, exist_ok=True)
    counter = work_dir / "attempt"
    attempt = int(counter.read_text()) + 1 if counter.exists() else 1
    partial = counter.with_name("attempt.partial")
    partial.write_text(str(attempt))
    partial.replace(counter)
    return attempt


def _clear_files(files: Path) -> None:
    """Start with an empty folder, but keep the log of earlier attempts."""
    files.mkdir(parents=True, exist_ok=True)
    for entry in files.iterdir():
        if entry.name != Path(LOG_FILE).parts[0]:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


@contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    """Hold the lock of one artifact; the kernel releases it when the process dies."""
    with lock.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("another process is making %s; waiting for it", lock.stem)
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
