"""Data and models from outside: how a reference is read, and what identifies its content.

A reference is `embedded...` or `sample:NAME` (made by the project), `s3://bucket/key`, a local path, or a hub id
`owner/name`. A local path is what exists on disk, or what looks like a path: it starts with `.`, `/` or `~`, or ends in
a data file's suffix.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final, Literal

from pipeline_common.errors import InputError

Kind = Literal["embedded", "sample", "s3", "local", "hub"]

DATA_SUFFIXES: Final = (".parquet", ".csv", ".jsonl", ".csv.gz", ".jsonl.gz", ".json")
# Weights are gigabytes: their size and time stand for them; everything smaller is read.
_HASHED_BYTES: Final = 1 << 28


def source_kind(reference: str) -> Kind:
    """Which kind of reference this is; never touches the network."""
    if reference.startswith("embedded"):
        return "embedded"
    if reference.startswith("sample:"):
        return "sample"
    if reference.startswith("s3://"):
        return "s3"
    if reference.startswith((".", "/", "~")) or reference.endswith(DATA_SUFFIXES) or Path(reference).exists():
        return "local"
    return "hub"


def local_path(reference: str) -> Path:
    """The existing file or folder behind a local reference.

    Raises:
        InputError: nothing is there.
    """
    path = Path(reference).expanduser()
    if not path.exists():
        raise InputError(f"{reference} does not exist (looked at {path.resolve()}); give an existing file, or a hub id")
    return path


def source_identity(reference: str, revision: str | None) -> dict[str, Any]:
    """What makes this source this source, for a fingerprint.

    Raises:
        InputError: a local file is missing, or nothing here fetches from such an address.
    """
    kind = source_kind(reference)
    if "://" in reference and kind != "s3":
        raise InputError(
            f"{reference}: of addresses only s3://bucket/key is read; fetch it and give the file, or give a hub id"
        )
    if kind == "local":
        return {"content": _content_digest(local_path(reference))}
    if kind in {"embedded", "sample"}:
        # Made by code that is already part of the fingerprint.
        return {"reference": reference}
    return {"reference": reference, "revision": revision}


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file, streamed."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _content_digest(path: Path) -> str:
    if path.is_file():
        return sha256_of(path)
    digest = hashlib.sha256()
    for entry in sorted(entry for entry in path.rglob("*") if entry.is_file()):
        stat = entry.stat()
        small = stat.st_size <= _HASHED_BYTES
        identity = sha256_of(entry) if small else f"{stat.st_size}:{stat.st_mtime_ns}"
        digest.update(f"{entry.relative_to(path).as_posix()}\0{identity}\n".encode())
    return digest.hexdigest()
