"""Pruning, in a directory and in a bucket on a real server: what a run refers to stays, whatever else is asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from jobs.prune.choosing import Pruning, list_folders, plan_pruning
from jobs.prune.removing import describe, remove
from pipeline_common.config import load_config
from pipeline_common.database import Database
from pipeline_common.database.lock import hold_stage
from pipeline_common.errors import InputError
from pipeline_common.manifest import InputEntry, Manifest, list_files
from pipeline_common.stages import REPOSITORY
from pipeline_common.tables import TABLES
from pipeline_common.workplace import Workplace, open_workplace
from tests.pipeline.walking import clean_environment
from tests.servers.buckets import BucketServer, serve_moto

LONG_AGO = "2026-01-01T00:00:00.000+00:00"
SHARED = {"environment/e", "prepare/p", "base_model/m", "base_activations/b"}
OF_A, OF_B = {"train/a", "evaluate/a", "analyze/a"}, {"train/b", "evaluate/b", "checkpoints/analyze/b"}
ORPHANS = {"train/orphan", "evaluate/half", "judge_model/j", "checkpoints/train/gone", "probes/x", "base_activations/o"}


@pytest.fixture(scope="module")
def server() -> Iterator[BucketServer]:
    with serve_moto() as server:
        yield server


@pytest.fixture(params=["directory", "bucket", "postgres"])
def place(request: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    for name in ("ARTIFACTS_URI", "DATABASE_URL", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    if request.param == "bucket":
        for name, value in request.getfixturevalue("server").environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("ARTIFACTS_URI", f"s3://{tmp_path.name.replace('_', '-').lower()}/some/prefix")
    if request.param == "postgres":
        monkeypatch.setenv("DATABASE_URL", request.getfixturevalue("migrated_postgres").url)
    made = open_workplace(load_config("tiny", [f"runtime.output_dir={tmp_path}/out"]))
    made.database.migrate()
    return fill(made, tmp_path)


def publish(place: Workplace, scratch: Any, key: str, run_id: str, *inputs: str, **summary: Any) -> None:
    stage, fingerprint = key.split("/")
    folder = scratch / "made" / key
    folder.mkdir(parents=True)
    (folder / "file.txt").write_text(f"content of {key}")
    if stage == "environment":
        base = {"kind": "embedded", "reference": "embedded", "commit": "c", "artifact": "base_model/m"}
        (folder / "base_model.json").write_text(json.dumps({"base": base}))
    manifest = Manifest(
        stage=stage,
        fingerprint=fingerprint,
        payload={},
        run_id=run_id,
        files=list_files(folder),
        inputs={other.split("/")[0]: InputEntry(key=other, manifest_sha256="0" * 64) for other in inputs},
        summary=summary,
    )
    place.store.publish(folder, manifest)


def record_run(place: Workplace, run_id: str, stages: dict[str, str], begun: str = LONG_AGO) -> None:
    """Rows of a run: stage -> fingerprint; analyze runs, the others are done."""
    run = {"run_id": run_id, "profile": "tiny", "created_at": begun, "base_model": "m", "dataset": "d"}
    place.database.upsert("experiments", [{**run, "prompts": "p", "config": {}}])
    for stage, fingerprint in stages.items():
        done = run_id != "b" or stage != "analyze"
        row = {"stage": stage, "fingerprint": fingerprint, "state": "done" if done else "running", "attempt": 1}
        times = {"started_at": begun, "ended_at": begun if done else None, "exit_code": 0 if done else None}
        artifact = f"{stage}/{fingerprint}" if done else None
        place.database.upsert("stage_runs", [{"run_id": run_id, **row, **times, "message": None, "artifact": artifact}])


def fill(place: Workplace, scratch: Any) -> Workplace:
    """Run a is finished, run b is in its last stage and shares the first two; and there is what nobody refers to."""
    publish(place, scratch, "base_model/m", "the first of all")
    publish(place, scratch, "environment/e", "a")
    publish(place, scratch, "prepare/p", "a", "environment/e")
    publish(place, scratch, "base_activations/b", "a")
    for run in "ab":
        publish(place, scratch, f"train/{run}", run, "environment/e", "prepare/p")
        told = "measured in this run" if run == "a" else "cached from base_activations/b"
        publish(place, scratch, f"evaluate/{run}", run, f"train/{run}", base_activations=told)
    publish(place, scratch, "analyze/a", "a", "evaluate/a")
    stages = {"environment": "e", "prepare": "p"}
    record_run(place, "a", {**stages, "train": "a", "evaluate": "a", "analyze": "a"})
    record_run(place, "b", {**stages, "train": "b", "evaluate": "b", "analyze": "b"})
    for run in "ab":
        keys = {stage: {"artifact": f"{stage}/{run}"} for stage in ("train", "evaluate")}
        place.store.put_bytes(f"runs/{run}/run.json", json.dumps({"run_id": run, "stages": keys}).encode())
    place.store.put_bytes("checkpoints/analyze/b/checkpoint-1/file", b"state of what runs")
    for key in ("train/orphan", "judge_model/j", "base_activations/o"):
        publish(place, scratch, key, "a run that was forgotten")
    place.store.put_bytes("evaluate/half/measures.json", b"an upload that was killed")
    place.store.put_bytes("checkpoints/train/gone/checkpoint-1/manifest.json", b"{}")
    place.store.put_bytes("probes/x", b"")
    return place


def keys(place: Workplace) -> set[str]:
    return {folder.key for folder in list_folders(place)}


def removed(pruning: Pruning) -> set[str]:
    return {folder.key for folder, _ in pruning.removed}


def test_only_what_nobody_refers_to_goes_and_only_when_told(place: Workplace) -> None:
    pruning = plan_pruning(place, (), None, keep_days=0)
    told = describe(place, pruning, apply=False)
    assert removed(pruning) == ORPHANS
    assert "would remove train/orphan  " in told
    assert "unfinished, and no run tells of it" in told
    assert told.endswith("nothing was changed; --apply does it\n")
    assert keys(place) == SHARED | OF_A | OF_B | ORPHANS
    assert remove(place, pruning).startswith("removed 6 folders, ")
    assert keys(place) == SHARED | OF_A | OF_B
    for key in ("train/a", "analyze/a", "environment/e"):
        manifest = place.store.read_manifest(key)
        assert (place.store.open(manifest) / "file.txt").read_text() == f"content of {key}"
    assert removed(plan_pruning(place, (), None, keep_days=0)) == set()


def test_what_is_new_stays_although_nobody_refers_to_it_yet(place: Workplace) -> None:
    """The artifact of a run that has not written its row yet."""
    assert removed(plan_pruning(place, (), None, keep_days=1)) == set()


def test_a_run_that_is_forgotten_takes_with_it_what_no_other_uses(place: Workplace) -> None:
    pruning = plan_pruning(place, ["a"], None, keep_days=0)
    assert removed(pruning) == ORPHANS | OF_A
    remove(place, pruning)
    # Run a made the base activations, run b read them.
    assert keys(place) == SHARED | OF_B
    for table in ("experiments", "stage_runs"):
        assert {row["run_id"] for row in place.database.select(sa.select(TABLES[table].c.run_id))} == {"b"}
    assert place.store.get_bytes("runs/a/run.json") is None
    assert place.store.get_bytes("runs/b/run.json") is not None


def test_a_run_that_only_the_store_tells_of_keeps_its_artifacts(place: Workplace) -> None:
    """The database was lost, or is another: nothing of the runs in the store goes."""
    fresh = Database(f"sqlite:///{place.output}/another.db", 5)
    fresh.migrate()
    pruning = plan_pruning(replace(place, database=fresh), (), None, keep_days=0)
    assert OF_A - {"analyze/a"} <= {folder.key for folder in pruning.kept}
    assert {"environment/e", "prepare/p", "base_model/m", "base_activations/b"} <= {one.key for one in pruning.kept}


def test_without_a_database_nothing_is_even_planned(place: Workplace) -> None:
    absent = Database(f"sqlite:///{place.output}/absent.db", 5)
    with pytest.raises(InputError, match="there is no results database"):
        plan_pruning(replace(place, database=absent), (), None, keep_days=0)


def test_what_cannot_be_read_is_no_leave_to_remove(place: Workplace) -> None:
    """A record that is damaged, or a database of newer code: what they refer to is unknown."""
    record = place.store.get_bytes("runs/a/run.json") or b""
    for damaged in (b"{", b"[]", b'{"stages": {"train": {}}}'):
        place.store.put_bytes("runs/a/run.json", damaged)
        done = prune(place, "--keep-days", "0", "--apply")
        assert done.returncode == 3
        assert "runs/a/run.json in the store is damaged" in done.stderr
        assert "Traceback" not in done.stderr
    place.store.put_bytes("runs/a/run.json", record)
    place.database.transact(lambda one: one.execute(sa.text("UPDATE alembic_version SET version_num = '9999'")))
    done = prune(place, "--keep-days", "0", "--apply")
    assert done.returncode == 3
    assert "use the newer code that made it" in done.stderr
    assert keys(place) == SHARED | OF_A | OF_B | ORPHANS


def test_a_number_of_days_that_is_none_is_told_in_words(place: Workplace) -> None:
    for wrong in ("x", "-1", "nan"):
        done = prune(place, f"--older-than={wrong}")
        assert done.returncode == 2
        assert f"{wrong}: expected a number of days, 0 or more" in done.stderr


def test_old_runs_are_forgotten_but_not_one_that_is_running(place: Workplace) -> None:
    recent = (datetime.now(UTC) - timedelta(days=3)).isoformat(timespec="milliseconds")
    record_run(place, "recent", {"environment": "e"}, begun=recent)
    with hold_stage(place.database, "b", "analyze", "analyze/b"):
        done = prune(place, "--older-than", "30")
        assert done.returncode == 0, done.stderr
        assert "would forget run a (begun 2026-01-01)" in done.stdout
        assert "keep run b: running (analyze)" in done.stdout
        assert "run recent" not in done.stdout
        refused = prune(place, "--run", "b", "--apply")
        assert refused.returncode == 3
        assert "run b is running (analyze)" in refused.stderr
    assert keys(place) == SHARED | OF_A | OF_B | ORPHANS


def test_a_run_that_takes_up_an_artifact_meanwhile_keeps_it(place: Workplace) -> None:
    pruning = plan_pruning(place, ["a"], None, keep_days=0)
    record_run(place, "new", {"environment": "e", "prepare": "p", "train": "orphan"})
    remove(place, pruning)
    assert keys(place) == SHARED | OF_B | {"train/orphan"}


def test_an_unknown_run_is_named(place: Workplace) -> None:
    with pytest.raises(InputError, match="no run is called nobody"):
        plan_pruning(place, ["nobody"], None, keep_days=0)


def test_the_command_removes_with_apply_alone(place: Workplace) -> None:
    folder = place.output / "work" / "train-orphan"
    folder.mkdir()
    latest = place.output / "latest"
    latest.mkdir()
    (latest / "train").symlink_to(place.output / "no-such-folder")
    for days in ("x", "-1", "nan", "inf"):
        refused = prune(place, "--keep-days", days)
        assert (refused.returncode, f"{days}: expected a number of days" in refused.stderr) == (2, True), refused.stderr
    assert prune(place, "--keep-days", "0").returncode == 0
    assert keys(place) == SHARED | OF_A | OF_B | ORPHANS
    done = prune(place, "--keep-days", "0", "--apply")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("removed 6 folders, ")
    assert keys(place) == SHARED | OF_A | OF_B
    assert not folder.exists()
    assert not (latest / "train").is_symlink()


def prune(place: Workplace, *options: str) -> subprocess.CompletedProcess[str]:
    outside = {**clean_environment(), "DATABASE_URL": str(os.environ.get("DATABASE_URL", ""))}
    if place.store.remote:
        outside["ARTIFACTS_URI"] = place.store.uri
    command = [sys.executable, "-m", "jobs.prune", f"runtime.output_dir={place.output}", *options]
    return subprocess.run(command, cwd=REPOSITORY, env=outside, capture_output=True, text=True, check=False)
