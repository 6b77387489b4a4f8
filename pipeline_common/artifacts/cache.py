"""Local copies of what is in a bucket: plain folders, each file put in its place only after it was verified."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline_common.artifacts.directory import replace_file
from pipeline_common.artifacts.keys import check_key
from pipeline_common.errors import InputError
from pipeline_common.manifest import MANIFEST_NAME, FileEntry, Manifest
from pipeline_common.sources import sha256_of


class LocalCopies:
    """Folders `<root>/<stage>/<fingerprint>/`, as a directory store has them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, key: str) -> Path:
        """Where the artifact's files lie."""
        return self.root / check_key(key)

    def is_complete(self, manifest: Manifest) -> bool:
        """True when all files of this very manifest were put there."""
        try:
            return (self.folder(manifest.key) / MANIFEST_NAME).read_bytes() == manifest.to_bytes()
        except FileNotFoundError:
            return False

    def mark_complete(self, manifest: Manifest) -> None:
        """Declare the folder complete, and remove what is not listed."""
        folder = self.folder(manifest.key)
        listed = {folder / entry.path for entry in manifest.files} | {folder / MANIFEST_NAME}
        for path in sorted(folder.rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path not in listed:
                path.unlink()
        replace_file(folder / MANIFEST_NAME, manifest.to_bytes())

    def missing(self, manifest: Manifest) -> list[FileEntry]:
        """Listed files that are not there, or differ from their sha256."""
        folder = self.folder(manifest.key)
        return [entry for entry in manifest.files if not _is_intact(folder, entry)]

    def keep(self, directory: Path, manifest: Manifest) -> None:
        """Take the files of an artifact that was made here; costs no room on the same file system."""
        folder = self.folder(manifest.key)
        shutil.rmtree(folder, ignore_errors=True)
        for entry in manifest.files:
            target = self.place(manifest.key, entry)
            try:
                os.link(directory / entry.path, target)
            except OSError:
                # Another file system, or one without links.
                shutil.copyfile(directory / entry.path, target)
        self.mark_complete(manifest)

    def place(self, key: str, entry: FileEntry) -> Path:
        """The path of a file, its folder made.

        Raises:
            InputError: a link on the way leads out of the artifact's folder.
        """
        folder = self.folder(key)
        target = folder / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.parent.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{target.parent} is a link that leads out of {folder}; remove it and run again")
        return target

    def put(self, key: str, entry: FileEntry, content: bytes) -> bool:
        """Write a small file, if its content is what the manifest says; else nothing, and False."""
        if len(content) != entry.size or hashlib.sha256(content).hexdigest() != entry.sha256:
            return False
        target = self.place(key, entry)
        partial = self.partial(target)
        try:
            # Not synchronised with the disk: what a power cut leaves is verified before it is used.
            partial.write_bytes(content)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return True

    def take(self, key: str, entry: FileEntry, partial: Path) -> None:
        """Put a file that was written beside, and verified, in its place."""
        partial.replace(self.place(key, entry))

    def partial(self, target: Path) -> Path:
        """A name beside `target` that no other process uses."""
        return target.with_name(f".{target.name[:200]}.{uuid.uuid4().hex}.partial")

    def remove(self, key: str) -> None:
        """Forget an artifact."""
        folder = self.folder(key)
        (folder / MANIFEST_NAME).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def alone(self, key: str) -> Iterator[None]:
        """Hold the artifact's folder against other processes of this machine."""
        folder = self.folder(key)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (folder.parent / f".{folder.name}.lock").open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield


def _is_intact(folder: Path, entry: FileEntry) -> bool:
    path = folder / entry.path
    if path.is_symlink() or not path.is_file():
        return False
    return path.stat().st_size == entry.size and sha256_of(path) == entry.sha256
