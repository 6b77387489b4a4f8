"""Artifacts in a local directory."""

from __future__ import annotations

import os
import shutil
import uuid
from datetime import UTC, datetime
from pathlib import Path

from pipeline_common.artifacts.keys import check_key, parse_stored_manifest
from pipeline_common.manifest import MANIFEST_NAME, Manifest, verify_files


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

    remote = False

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
        return parse_stored_manifest(content, key)

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
        shutil.rmtree(self._path(key), ignore_errors=True)

    def list_keys(self, stage: str) -> list[str]:
        """See `ArtifactStore.list_keys`."""
        manifests = sorted(self._path(stage).glob(f"*/{MANIFEST_NAME}"), key=lambda path: path.stat().st_mtime_ns)
        return [f"{stage}/{path.parent.name}" for path in manifests]

    def list_objects(self, folder: str) -> list[tuple[str, int, datetime]]:
        """See `ArtifactStore.list_objects`."""
        found = []
        for path in sorted(self._path(folder).rglob("*")):
            if path.is_file():
                seen = path.stat()
                name = path.relative_to(self.root).as_posix()
                found.append((name, seen.st_size, datetime.fromtimestamp(seen.st_mtime, UTC)))
        return found

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
        return self.root / check_key(key)
