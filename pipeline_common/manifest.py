"""The manifest: the last file written of an artifact, and the only thing a reader trusts.

It exists only when everything it lists is there. A reader compares what it opens with the sizes and sha256 listed.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline_common.errors import InputError
from pipeline_common.measures import Degradation
from pipeline_common.sources import sha256_of

SCHEMA_VERSION: Final = 1
MANIFEST_NAME: Final = "manifest.json"
# What every file system and bucket keeps as it is; no part is `.` or `..`, so that a path cannot leave its folder.
_SAFE_PATH: Final = re.compile(r"(?!\.\.?(/|$))[A-Za-z0-9._=-]+(/(?!\.\.?(/|$))[A-Za-z0-9._=-]+)*")


class FileEntry(BaseModel):
    """One file of an artifact; `path` is relative, with forward slashes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    size: int
    sha256: str


class InputEntry(BaseModel):
    """The artifact an input was read from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    manifest_sha256: str


class Manifest(BaseModel):
    """What an artifact is, what it holds, what it was made from and by what."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = SCHEMA_VERSION
    stage: str
    fingerprint: str
    payload: dict[str, Any]
    run_id: str
    """The run that made it; other runs may share it."""
    files: tuple[FileEntry, ...]
    inputs: dict[str, InputEntry] = {}
    summary: dict[str, Any] = {}
    degradations: tuple[Degradation, ...] = ()
    provenance: dict[str, Any] = {}

    @property
    def key(self) -> str:
        """Where the artifact lives in its store."""
        return f"{self.stage}/{self.fingerprint}"

    def to_bytes(self) -> bytes:
        """Canonical JSON: sorted keys, two spaces, one newline at the end."""
        return (json.dumps(self.model_dump(mode="json"), indent=2, sort_keys=True) + "\n").encode()

    def digest(self) -> str:
        """Hex sha256 of `to_bytes()`."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def parse_manifest(content: bytes, where: str) -> Manifest:
    """Read a manifest.

    Raises:
        InputError: it is not JSON, misses fields, lists a path that leads elsewhere, or was written by another schema
            version.
    """
    try:
        tree = json.loads(content)
        version = tree.get("schema_version") if isinstance(tree, dict) else None
    except ValueError as error:
        raise InputError(
            f"{where}: the manifest is not JSON ({error}); remove the folder and run the stage again"
        ) from error
    if version != SCHEMA_VERSION:
        raise InputError(
            f"{where}: the manifest has schema version {version!r}, this code reads {SCHEMA_VERSION}; "
            "run the stage again with --force, or use the code that wrote it"
        )
    try:
        manifest = Manifest.model_validate(tree)
    except ValidationError as error:
        raise InputError(
            f"{where}: the manifest is damaged ({error.error_count()} fields); "
            "remove the folder and run the stage again"
        ) from error
    for entry in manifest.files:
        check_path(entry.path, where)
    return manifest


def check_path(path: str, where: str) -> None:
    """Make sure that a file's path stays inside its artifact, in any store.

    Raises:
        InputError: it could lead elsewhere, or is not made of the safe alphabet.
    """
    if not _SAFE_PATH.fullmatch(path) or path == MANIFEST_NAME:
        raise InputError(
            f"{where}: {path!r} is no path for a file of an artifact; expected parts of letters, digits and ._=- "
            "joined by /"
        )


def list_files(directory: Path) -> tuple[FileEntry, ...]:
    """Every file below `directory` but a manifest at its top, sorted by path.

    Raises:
        InputError: a symbolic link, or a name with other characters: no store could keep them.
    """
    entries = []
    for path in sorted(directory.rglob("*")):
        relative = path.relative_to(directory).as_posix()
        if path.is_symlink():
            raise InputError(f"{path} is a symbolic link; an artifact holds plain files only")
        if path.is_file() and relative != MANIFEST_NAME:
            check_path(relative, str(directory))
            entries.append(FileEntry(path=relative, size=path.stat().st_size, sha256=sha256_of(path)))
    return tuple(entries)


def verify_files(directory: Path, manifest: Manifest) -> None:
    """Compare every listed file with its size and sha256.

    Raises:
        InputError: names the first file that is missing, truncated or changed.
    """
    for entry in manifest.files:
        path = directory / entry.path
        if not path.is_file():
            raise InputError(f"{manifest.key}: {entry.path} is listed in the manifest but missing; {remedy(manifest)}")
        size = path.stat().st_size
        if size != entry.size:
            raise InputError(
                f"{manifest.key}: {entry.path} has {size} bytes, the manifest says {entry.size}; {remedy(manifest)}"
            )
        if sha256_of(path) != entry.sha256:
            raise InputError(
                f"{manifest.key}: {entry.path} differs from its sha256 in the manifest; {remedy(manifest)}"
            )


def remedy(manifest: Manifest) -> str:
    """How to get a damaged artifact again, for the end of a message."""
    return f"make it again: python -m jobs.{manifest.stage} --config ... --force"
