"""Where artifacts are kept: `<stage>/<fingerprint>/` with its manifest, and `runs/<run_id>/run.json`.

A directory or a bucket; `open_store` chooses by `ARTIFACTS_URI`.
"""

from __future__ import annotations

import os
import re
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit

from pipeline_common.artifacts.directory import DirectoryStore
from pipeline_common.errors import ConfigError

if TYPE_CHECKING:
    from pipeline_common.config import ArtifactsConfig, Config
    from pipeline_common.manifest import Manifest


class ArtifactStore(Protocol):
    """What a stage needs of a place that keeps artifacts."""

    uri: str
    remote: bool
    """True when it outlives this machine's disk: worth a copy of what only lies here."""

    def publish(self, directory: Path, manifest: Manifest) -> None:
        """Keep the files of `directory` under the manifest's key; the manifest becomes visible last."""

    def read_manifest(self, key: str) -> Manifest | None:
        """The manifest under `key`; None when the artifact is absent or was never finished."""

    def open(self, manifest: Manifest) -> Path:
        """A local folder with the artifact's files, each compared with its sha256."""

    def locate(self, manifest: Manifest) -> Path:
        """The same folder without comparing again: for what this process has opened already."""

    def withdraw(self, key: str) -> None:
        """Remove an artifact, its manifest first: it counts as never finished."""

    def list_keys(self, stage: str) -> list[str]:
        """Keys of a stage's finished artifacts, oldest first."""

    def list_objects(self, folder: str) -> list[tuple[str, int, datetime]]:
        """Path in the store, bytes and time of change (UTC) of everything below a folder, finished or not."""

    def put_bytes(self, key: str, content: bytes) -> None:
        """Keep one small object, replacing what was there."""

    def get_bytes(self, key: str) -> bytes | None:
        """One small object; None when absent."""

    def delete(self, key: str) -> None:
        """Remove one small object; absent is fine."""


def artifacts_uri(config: Config) -> str:
    """`ARTIFACTS_URI`, else the configuration's, else `<output_dir>/artifacts`.

    Raises:
        ConfigError: the address carries credentials, which would be shown wherever it is.
    """
    uri = os.environ.get("ARTIFACTS_URI") or config.artifacts.uri or str(Path(config.runtime.output_dir) / "artifacts")
    if "://" in uri and "@" in urlsplit(uri).netloc:
        raise ConfigError(
            "ARTIFACTS_URI (or artifacts.uri) holds credentials; give s3://bucket/prefix alone and put the keys into "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    return uri


def open_store(uri: str, settings: ArtifactsConfig | None = None, cache: Path | None = None) -> ArtifactStore:
    """The store behind a URI.

    Args:
        uri: a directory, `file:///path` or `s3://bucket/prefix`.
        settings: time-outs and parallel transfers of a bucket; None = the defaults.
        cache: folder for local copies of what is in a bucket; a bucket cannot do without.

    Raises:
        ConfigError: a scheme that no store serves, or a bucket that cannot be named so.
    """
    if "://" not in uri:
        if re.match(r"(s3|file):", uri):
            # As a directory it would be one called `s3:` here, and everything would seem to work.
            raise ConfigError(f"ARTIFACTS_URI={uri!r}: expected two slashes, file:///path or s3://bucket/prefix")
        return DirectoryStore(Path(uri))
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return DirectoryStore(Path(unquote(parts.path)))
    if parts.scheme == "s3":
        from pipeline_common.artifacts.bucket import BucketStore
        from pipeline_common.config import ArtifactsConfig

        assert cache is not None, "a bucket needs a folder for local copies"
        return BucketStore(uri, settings or ArtifactsConfig(), cache)
    raise ConfigError(
        f"ARTIFACTS_URI={uri!r}: no store serves {parts.scheme}://; expected a directory, file:///path or "
        "s3://bucket/prefix"
    )
