from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline_common.artifacts import ArtifactStore, DirectoryStore, open_store
from pipeline_common.config import ArtifactsConfig
from tests.servers.buckets import BucketServer, RcloneServer, serve_moto, serve_rclone

_names = (f"bucket-{number}" for number in itertools.count())
# Faults of the server are waited for so briefly that a test can be about giving up.
IMPATIENT = {"connect_timeout_s": 1.0, "read_timeout_s": 2.0, "give_up_after_s": 3.0}


@pytest.fixture(scope="session")
def moto() -> Iterator[BucketServer]:
    with serve_moto() as server:
        yield server


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RcloneServer]:
    with serve_rclone(tmp_path_factory.mktemp("rclone")) as server:
        yield server


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Point the environment at a server."""

    def use(server: BucketServer, **others: str) -> None:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_CA_BUNDLE", "ARTIFACTS_URI"):
            monkeypatch.delenv(name, raising=False)
        for name, value in {**server.environment(), **others}.items():
            monkeypatch.setenv(name, value)

    return use


@pytest.fixture
def bucket_name() -> str:
    return next(_names)


@pytest.fixture
def open_bucket(bucket_name: str, tmp_path: Path) -> Callable[..., ArtifactStore]:
    """A store on the test's own bucket, with local copies in a folder of the given name."""

    def open_bucket(cache: str = "cache", bucket: str = bucket_name, **settings: object) -> ArtifactStore:
        values = ArtifactsConfig.model_validate({**IMPATIENT, **settings})
        return open_store(f"s3://{bucket}/some/prefix", values, tmp_path / cache)

    return open_bucket


@dataclass(frozen=True)
class Backstage:
    """What lies in a store, seen and changed without it; paths are keys of the store."""

    read: Callable[[str], bytes]
    write: Callable[[str, bytes], None]
    remove: Callable[[str], None]


@pytest.fixture
def backstage_of(bucket_name: str) -> Callable[[BucketServer], Backstage]:
    def backstage_of(server: BucketServer) -> Backstage:
        client = server.client()
        where = {"Bucket": bucket_name}
        return Backstage(
            read=lambda key: client.get_object(**where, Key=f"some/prefix/{key}")["Body"].read(),
            write=lambda key, content: client.put_object(**where, Key=f"some/prefix/{key}", Body=content),
            remove=lambda key: client.delete_object(**where, Key=f"some/prefix/{key}"),
        )

    return backstage_of


@pytest.fixture(params=["directory", "moto", "rclone"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def store(kind, request, tmp_path, use, open_bucket) -> ArtifactStore:
    if kind == "directory":
        return DirectoryStore(tmp_path / "store")
    use(request.getfixturevalue(kind))
    return open_bucket()


@pytest.fixture
def another_machine(kind, store, open_bucket) -> ArtifactStore:
    """The same store where nothing has been read yet."""
    return store if kind == "directory" else open_bucket(cache="another")


@pytest.fixture
def backstage(kind, store, request, backstage_of) -> Backstage:
    if kind != "directory":
        return backstage_of(request.getfixturevalue(kind))
    root = store.root

    def write(key: str, content: bytes) -> None:
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(content)

    return Backstage(read=lambda key: (root / key).read_bytes(), write=write, remove=lambda key: (root / key).unlink())
