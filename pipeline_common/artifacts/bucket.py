"""Artifacts in a bucket of any S3-compatible server, with verified local copies of what is read.

Under the prefix lie the objects that a directory store would have as files; many small files are packed (`packing`).
The manifest is written last and removed first. What an object holds is decided by the manifest's sha256 alone: neither
ETags, nor checksums of the server, nor user metadata are trusted by a reader, since servers differ in all of them.

A publication that was cut short is taken up: an object counts as sent when its size and its ETag, as the MD5 of what
would be sent, agree. The server computes that MD5 from what it stored, so a partial or damaged object differs; where
ETags are no MD5 (some encryption settings), everything is sent again. A marker object or a journal of our own would
only say what was once sent, not what is there. An artifact that was finished once and is published again is sent whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipeline_common.artifacts.cache import LocalCopies
from pipeline_common.artifacts.keys import check_key, parse_stored_manifest
from pipeline_common.artifacts.packing import Pack, build_pack, plan_packs, read_pack
from pipeline_common.artifacts.sent import is_sent
from pipeline_common.errors import ConfigError, InputError
from pipeline_common.logs import get_logger
from pipeline_common.manifest import MANIFEST_NAME, FileEntry, Manifest, remedy
from pipeline_common.quantities import describe_bytes
from pipeline_common.s3.bucket import Bucket
from pipeline_common.s3.transfer import SMALL_BYTES, Arrived, Download, Upload
from pipeline_common.transfer_progress import track_bytes

if TYPE_CHECKING:
    from pipeline_common.config import ArtifactsConfig

_log = get_logger(__name__)


class BucketStore:
    """Artifacts under `s3://bucket/prefix`."""

    remote = True

    def __init__(self, uri: str, settings: ArtifactsConfig, cache: Path) -> None:
        parts = urlsplit(uri)
        self._prefix = parts.path.strip("/")
        if not parts.netloc or parts.query or parts.fragment:
            raise ConfigError(f"ARTIFACTS_URI={uri!r}: expected s3://bucket/prefix")
        if self._prefix:
            try:
                check_key(self._prefix)
            except InputError as error:
                raise ConfigError(f"ARTIFACTS_URI={uri!r}: {error}") from error
        self.uri = f"s3://{parts.netloc}/{self._prefix}".rstrip("/")
        self._copies = LocalCopies(cache)
        self._bucket = Bucket(parts.netloc, self._prefix, settings)

    def publish(self, directory: Path, manifest: Manifest) -> None:
        """See `ArtifactStore.publish`."""
        found = self._bucket.list_objects(f"{self._object(manifest.key)}/")
        if MANIFEST_NAME in found:
            # From here on it is unfinished, whatever happens; and what was finished once is sent anew.
            self.delete(f"{manifest.key}/{MANIFEST_NAME}")
            found = {}
        self._bucket.abort_uploads(f"{self._object(manifest.key)}/")
        objects = self._plan_uploads(directory, manifest)
        there = [item for item in objects if is_sent(item, found.get(self._path_in(manifest.key, item.key)))]
        # Left by an attempt that made other files.
        for path in found.keys() - {self._path_in(manifest.key, item.key) for item in objects}:
            self._bucket.delete(f"{self._object(manifest.key)}/{path}")
        wanted = [item for item in objects if item not in there]
        self._bucket.require()
        with self._told(f"sending {manifest.key}", wanted, already=len(there)) as report:
            self._bucket.transfers.upload(wanted, report)
        self.put_bytes(f"{manifest.key}/{MANIFEST_NAME}", manifest.to_bytes())
        with self._copies.alone(manifest.key):
            self._copies.keep(directory, manifest)

    def read_manifest(self, key: str) -> Manifest | None:
        """See `ArtifactStore.read_manifest`."""
        content = self.get_bytes(f"{key}/{MANIFEST_NAME}")
        return None if content is None else parse_stored_manifest(content, key)

    def open(self, manifest: Manifest) -> Path:
        """See `ArtifactStore.open`."""
        with self._copies.alone(manifest.key):
            missing = self._copies.missing(manifest)
            if missing:
                self._fetch(manifest, missing)
            if missing or not self._copies.is_complete(manifest):
                self._copies.mark_complete(manifest)
        return self._copies.folder(manifest.key)

    def locate(self, manifest: Manifest) -> Path:
        """See `ArtifactStore.locate`."""
        return self._copies.folder(manifest.key) if self._copies.is_complete(manifest) else self.open(manifest)

    def withdraw(self, key: str) -> None:
        """See `ArtifactStore.withdraw`."""
        self.delete(f"{key}/{MANIFEST_NAME}")
        for path in self._bucket.list_objects(f"{self._object(key)}/"):
            self._bucket.delete(f"{self._object(key)}/{path}")
        self._copies.remove(key)

    def list_keys(self, stage: str) -> list[str]:
        """See `ArtifactStore.list_keys`."""
        found = self._bucket.list_objects(f"{self._object(stage)}/")
        manifests = [path for path in found if path.count("/") == 1 and path.endswith(f"/{MANIFEST_NAME}")]
        manifests.sort(key=lambda path: (found[path]["LastModified"], path))
        return [f"{stage}/{path.partition('/')[0]}" for path in manifests]

    def list_objects(self, folder: str) -> list[tuple[str, int, datetime]]:
        """See `ArtifactStore.list_objects`."""
        found = self._bucket.list_objects(f"{self._object(folder)}/")
        return [
            (f"{folder}/{path}", int(item["Size"]), item["LastModified"].astimezone(UTC))
            for path, item in sorted(found.items())
        ]

    def put_bytes(self, key: str, content: bytes) -> None:
        """See `ArtifactStore.put_bytes`."""
        self._bucket.put(self._object(key), content)

    def get_bytes(self, key: str) -> bytes | None:
        """See `ArtifactStore.get_bytes`."""
        return self._bucket.get(self._object(key))

    def delete(self, key: str) -> None:
        """See `ArtifactStore.delete`."""
        self._bucket.delete(self._object(key))

    def _object(self, key: str) -> str:
        return f"{self._prefix}/{check_key(key)}" if self._prefix else check_key(key)

    def _path_in(self, key: str, name: str) -> str:
        return name.removeprefix(f"{self._object(key)}/")

    def _plan_uploads(self, directory: Path, manifest: Manifest) -> list[Upload]:
        plain, packs = plan_packs(manifest.files)
        folder = self._object(manifest.key)
        for entry in plain:
            size = (directory / entry.path).stat().st_size
            if size != entry.size:
                raise InputError(f"{directory / entry.path} has {size} bytes, {entry.size} when it was listed")
        return [
            *(
                Upload(
                    f"{folder}/{entry.path}", entry.size, directory / entry.path, (directory / entry.path).read_bytes
                )
                for entry in plain
            ),
            *(
                Upload(f"{folder}/{pack.path}", pack.size, directory, partial(build_pack, pack, directory))
                for pack in packs
            ),
        ]

    def _fetch(self, manifest: Manifest, missing: list[FileEntry]) -> None:
        """Bring files into the local copy, each verified before it is put in its place."""
        key = manifest.key
        wanted = {entry.path for entry in missing}
        plain, packs = plan_packs(manifest.files)
        objects = []
        parts: list[FileEntry | Pack] = [*plain, *packs]
        for item in parts:
            entries = item.entries if isinstance(item, Pack) else (item,)
            if wanted.isdisjoint(entry.path for entry in entries):
                continue
            objects.append(
                Download(
                    key=f"{self._object(key)}/{item.path}",
                    size=item.size,
                    take=partial(self._take, manifest, item),
                    absent=self._flawed(manifest, f"{item.path} is listed in the manifest but missing"),
                    partial=self._copies.partial(self._copies.place(key, entries[0])),
                    large=isinstance(item, FileEntry) and item.size > SMALL_BYTES,
                )
            )
        with self._told(f"fetching {key}", objects) as report:
            self._bucket.transfers.download(objects, report)

    def _take(self, manifest: Manifest, item: FileEntry | Pack, content: bytes | Arrived) -> str | None:
        """Put what was fetched in its place; what is wrong with it otherwise."""
        size = content.file.stat().st_size if isinstance(content, Arrived) else len(content)
        if size != item.size:
            return self._flawed(manifest, f"{item.path} has {size} bytes, the manifest says {item.size}")
        flaw = f"{item.path} differs from its sha256 in the manifest"
        if isinstance(content, Arrived):
            assert isinstance(item, FileEntry), "packs are small"
            if content.sha256 != item.sha256:
                return self._flawed(manifest, flaw)
            self._copies.take(manifest.key, item, content.file)
            return None
        if isinstance(item, FileEntry):
            return None if self._copies.put(manifest.key, item, content) else self._flawed(manifest, flaw)
        try:
            for entry, inner in read_pack(item, content):
                if not self._copies.put(manifest.key, entry, inner):
                    flaw = f"{entry.path} (in {item.path}) differs from its sha256 in the manifest"
                    return self._flawed(manifest, flaw)
        except ValueError as error:
            return self._flawed(manifest, f"{item.path} is damaged ({error})")
        return None

    def _flawed(self, manifest: Manifest, flaw: str) -> str:
        return f"{self.uri}/{manifest.key}: {flaw}; {remedy(manifest)}"

    @contextmanager
    def _told(self, what: str, objects: list[Any], already: int = 0) -> Iterator[Callable[[int], None]]:
        """Progress while `objects` move, and one line at the end."""
        total = sum(item.size for item in objects)
        began = time.monotonic()
        with track_bytes(what, total) as report:
            yield report
        seconds = time.monotonic() - began
        there = f", {already} there already" if already else ""
        _log.debug("%s: %d objects, %s in %.2f s%s", what, len(objects), describe_bytes(total), seconds, there)
