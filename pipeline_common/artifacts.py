"""Where artifacts are kept: `<stage>/<fingerprint>/` with its manifest, and `runs/<run_id>/run.json`.

One store for now, a directory; `open_store` chooses by `ARTIFACTS_URI`. Keys are made by us from a safe alphabet.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlparse

from pipeline_common.errors import ConfigError, InputError
from pipeline_common.manifest import MANIFEST_NAME, Manifest, parse_manifest, verify_files

if TYPE_CHECKING:
    from pipeline_common.config import Config

_SAFE_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=-]*(/[A-Za-z0-9_][A-Za-z0-9._=-]*)*")


class ArtifactStore(Protocol):
    """What a stage needs of a place that keeps artifacts."""

    uri: str

    def publish(self, directory: Path, manifest: Manifest) -> None:
        """Keep the files of `directory` under the manifest's key; the manifest becomes visible last."""

    def read_manifest(self, key: str) -> Manifest | None:
        """The manifest under `key`; None when the artifact is absent or was never finished."""

    def open(self, manifest: Manifest) -> Path:
        """A local folder with the artifact's files, each compared with its sha256."""

    def locate(self, manifest: Manifest) -> Path:
        """The same folder without comparing again: for what this process has opened already."""

    def withdraw(self, key: str) -> None:
        """Remove an artifact's manifest: it counts as never finished."""

    def list_keys(self, stage: str) -> list[str]:
        """Keys of a stage's finished artifacts, oldest first."""

    def put_bytes(self, key: str, content: bytes) -> None:
        """Keep one small object, replacing what was there."""

    def get_bytes(self, key: str) -> bytes | None:
        """One small object; None when absent."""

    def delete(self, key: str) -> None:
        """Remove one small object; absent is fine."""


def artifacts_uri(config: Config) -> str:
    """`ARTIFACTS_URI`, else the configuration's, else `<output_dir>/artifacts`."""
    return os.environ.get("ARTIFACTS_URI") or config.artifacts.uri or str(Path(config.runtime.output_dir) / "artifacts")


def open_store(uri: str) -> ArtifactStore:
    """The store behind a URI.

    Raises:
        ConfigError: a scheme that no store serves.
    """
    if "://" not in uri:
        return DirectoryStore(Path(uri))
    parts = urlparse(uri)
    if parts.scheme == "file":
        return DirectoryStore(Path(unquote(parts.path)))
    raise ConfigError(f"ARTIFACTS_URI={uri!r}: no store serves {parts.scheme}://; expected a directory or file:///path")


def replace_file(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that a reader sees the old file or the whole new one, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


class DirectoryStore:
    """Artifacts in a local directory."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().resolve()
        self.uri = self.root.as_uri()

    def publish(self, directory: Path, manifest: Manifest) -> None:
        """See `ArtifactStore.publish`."""
        target = self._path(manifest.key)
        (target / MANIFEST_NAME).unlink(missing_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        for entry in manifest.files:
            destination = target / entry.path
            destination.parent.mkdir(parents=True, exist_ok=True)
            with (directory / entry.path).open("rb") as source, destination.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
                sink.flush()
                os.fsync(sink.fileno())
        replace_file(target / MANIFEST_NAME, manifest.to_bytes())

    def read_manifest(self, key: str) -> Manifest | None:
        """See `ArtifactStore.read_manifest`."""
        content = self.get_bytes(f"{key}/{MANIFEST_NAME}")
        if content is None:
            return None
        manifest = parse_manifest(content, key)
        if manifest.key != key:
            raise InputError(f"{key}: its manifest says it is {manifest.key}; the folder was moved or renamed by hand")
        return manifest

    def open(self, manifest: Manifest) -> Path:
        """See `ArtifactStore.open`."""
        directory = self._path(manifest.key)
        verify_files(directory, manifest)
        return directory

    def locate(self, manifest: Manifest) -> Path:
        """See `ArtifactStore.locate`."""
        return self._path(manifest.key)

    def withdraw(self, key: str) -> None:
        """See `ArtifactStore.withdraw`."""
        self.delete(f"{key}/{MANIFEST_NAME}")

    def list_keys(self, stage: str) -> list[str]:
        """See `ArtifactStore.list_keys`."""
        manifests = sorted(self._path(stage).glob(f"*/{MANIFEST_NAME}"), key=lambda path: path.stat().st_mtime_ns)
        return [f"{stage}/{path.parent.name}" for path in manifests]

    def put_bytes(self, key: str, content: bytes) -> None:
        """See `ArtifactStore.put_bytes`."""
        replace_file(self._path(key), content)

    def get_bytes(self, key: str) -> bytes | None:
        """See `ArtifactStore.get_bytes`."""
        try:
            return self._path(key).read_bytes()
        except FileNotFoundError:
            return None

    def delete(self, key: str) -> None:
        """See `ArtifactStore.delete`."""
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        if not _SAFE_KEY.fullmatch(key):
            raise InputError(f"artifact key {key!r}: expected parts of letters, digits and ._=- joined by /")
        return self.root / key
