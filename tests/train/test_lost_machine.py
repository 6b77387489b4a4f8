"""A training whose machine goes away with its disk: the next one goes on from the bucket's checkpoint."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.train.checkpoint_copies import CheckpointCopies
from jobs.train.checkpoints import mark_complete
from pipeline_common.artifacts import ArtifactStore, open_store
from pipeline_common.config import ArtifactsConfig
from pipeline_common.errors import ConfigError
from tests.servers.buckets import RcloneServer, serve_rclone
from tests.train.conftest import Finished, Prepared
from tests.train.made_runs import DEADLINE_S, comparable_rows, facts_of, start

MADE_BY = {"device": "cpu"}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RcloneServer]:
    folder = tmp_path / "served"
    folder.mkdir()
    with serve_rclone(folder) as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        yield server


def test_a_fresh_machine_resumes_from_the_bucket_to_the_same_bytes(
    server: RcloneServer,
    prepare_run: Callable[..., Prepared],
    undisturbed: Finished,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("ARTIFACTS_URI", "s3://models/here")
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/results.db")
    prepared = prepare_run()
    area = server.folder / "models" / "here" / "checkpoints" / prepared.planned.key
    process = start(prepared)
    until = time.monotonic() + DEADLINE_S
    while not (area / "checkpoint-8" / "manifest.json").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=DEADLINE_S)
    shutil.rmtree(prepared.place.output)
    (prepared.place.output / "work").mkdir(parents=True)

    resumed = prepared.train()
    assert facts_of(resumed)["resumed_from_step"] in {8, 12, 16}
    assert resumed.adapter_digests() == undisturbed.adapter_digests()
    assert comparable_rows(resumed) == comparable_rows(undisturbed)
    assert not list(area.rglob("*.json")), "removed once the artifact is there"


@pytest.fixture
def store(server: RcloneServer, tmp_path: Path) -> ArtifactStore:
    settings = ArtifactsConfig(connect_timeout_s=1, read_timeout_s=1, give_up_after_s=0.5)
    return open_store("s3://models/here", settings, tmp_path / "cache")


def make_checkpoint(root: Path, step: int, made_by: dict[str, str] = MADE_BY) -> Path:
    folder = root / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "optimizer.pt").write_bytes(f"state after {step}".encode())
    mark_complete(folder, made_by)
    return folder


def test_the_newest_usable_copy_is_fetched_and_only_two_are_kept(store: ArtifactStore, tmp_path: Path) -> None:
    copies = CheckpointCopies(store, "checkpoints/train/f00d", "run")
    for step in (8, 16, 100):
        copies.save(make_checkpoint(tmp_path / "first", step), MADE_BY)
    assert store.list_keys("checkpoints/train/f00d") == [
        "checkpoints/train/f00d/checkpoint-16",
        "checkpoints/train/f00d/checkpoint-100",
    ]
    copies.restore(tmp_path / "second", MADE_BY)
    assert (tmp_path / "second" / "checkpoint-100" / "optimizer.pt").read_bytes() == b"state after 100"
    # Another kind of machine could not go on from it.
    copies.restore(tmp_path / "third", {"device": "cuda"})
    assert not (tmp_path / "third").exists()


def test_a_damaged_copy_gives_way_to_an_older_one(store: ArtifactStore, server: RcloneServer, tmp_path: Path) -> None:
    copies = CheckpointCopies(store, "checkpoints/train/f00d", "run")
    for step in (8, 16):
        copies.save(make_checkpoint(tmp_path / "first", step), MADE_BY)
    stored = server.folder / "models/here/checkpoints/train/f00d/checkpoint-16/optimizer.pt"
    stored.write_bytes(b"State after 16")
    elsewhere = open_store("s3://models/here", ArtifactsConfig(), tmp_path / "elsewhere")
    CheckpointCopies(elsewhere, "checkpoints/train/f00d", "run").restore(tmp_path / "second", MADE_BY)
    assert [path.name for path in (tmp_path / "second").iterdir()] == ["checkpoint-8"]


def test_what_lies_here_and_is_newer_is_not_fetched(store: ArtifactStore, tmp_path: Path) -> None:
    copies = CheckpointCopies(store, "checkpoints/train/f00d", "run")
    copies.save(make_checkpoint(tmp_path / "first", 8), MADE_BY)
    make_checkpoint(tmp_path / "second", 16)
    copies.restore(tmp_path / "second", MADE_BY)
    assert [path.name for path in (tmp_path / "second").iterdir()] == ["checkpoint-16"]


def test_an_outage_does_not_end_the_training_but_wrong_keys_do(
    store: ArtifactStore,
    server: RcloneServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = make_checkpoint(tmp_path / "first", 8)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    refused = open_store("s3://models/here", ArtifactsConfig(), tmp_path / "cache")
    with pytest.raises(ConfigError, match="SignatureDoesNotMatch"):
        CheckpointCopies(refused, "checkpoints/train/f00d", "run").save(folder, MADE_BY)
    server.kill()
    CheckpointCopies(store, "checkpoints/train/f00d", "run").save(folder, MADE_BY)
    assert "checkpoint-8 is on this machine's disk only" in caplog.text
