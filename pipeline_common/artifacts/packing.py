"""Many small files travel as a few tar objects: a request costs more than a small file.

Which files are packed follows from the manifest alone, so a reader needs no index. An artifact with few small files is
kept as plain objects, which people can look at in the bucket.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline_common.manifest import FileEntry

PACK_FOLDER: Final = "packed-files"
# Below this many, plain objects take well under a second.
_MIN_FILES: Final = 100
_MAX_FILE_BYTES: Final = 64 << 10
_MAX_PACK_BYTES: Final = 4 << 20
_TAR_HEADER_BYTES: Final = tarfile.BLOCKSIZE


@dataclass(frozen=True)
class Pack:
    """Files that share one object."""

    path: str
    """Where the object lies in the artifact."""
    entries: tuple[FileEntry, ...]

    @property
    def size(self) -> int:
        """Bytes of the object: headers, contents filled up to whole blocks, two empty blocks, the last record."""
        block = tarfile.BLOCKSIZE
        blocks = sum(_TAR_HEADER_BYTES + -(-entry.size // block) * block for entry in self.entries) + 2 * block
        return -(-blocks // tarfile.RECORDSIZE) * tarfile.RECORDSIZE


def plan_packs(entries: Sequence[FileEntry]) -> tuple[list[FileEntry], list[Pack]]:
    """Split an artifact's files into plain objects and packs; the same for the same files.

    Args:
        entries: the manifest's files.

    Returns:
        Files with an object of their own, and packs.
    """
    small = sorted((entry for entry in entries if _fits(entry)), key=lambda entry: entry.path)
    taken = any(entry.path.startswith(f"{PACK_FOLDER}/") for entry in entries)
    if len(small) < _MIN_FILES or taken:
        return list(entries), []
    groups: list[list[FileEntry]] = [[]]
    room = _MAX_PACK_BYTES
    for entry in small:
        if groups[-1] and entry.size > room:
            groups.append([])
            room = _MAX_PACK_BYTES
        groups[-1].append(entry)
        room -= entry.size
    packs = [Pack(f"{PACK_FOLDER}/{number:05d}.tar", tuple(group)) for number, group in enumerate(groups)]
    return [entry for entry in entries if not _fits(entry)], packs


def build_pack(pack: Pack, directory: Path) -> bytes:
    """The tar of a pack's files; the same bytes for the same contents."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for entry in pack.entries:
            member = tarfile.TarInfo(entry.path)
            member.size = entry.size
            tar.addfile(member, io.BytesIO((directory / entry.path).read_bytes()))
    return buffer.getvalue()


def read_pack(pack: Pack, content: bytes) -> Iterator[tuple[FileEntry, bytes]]:
    """Each listed file with the bytes found in its place; the tar's own names are never used for a path.

    Raises:
        ValueError: the tar does not hold the listed files in the listed order.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
            for entry in pack.entries:
                member = tar.next()
                if member is None or member.name != entry.path or not member.isreg():
                    raise ValueError(f"{entry.path} is not in its place")
                stream = tar.extractfile(member)
                assert stream is not None, "a regular file has content"
                yield entry, stream.read()
    except tarfile.TarError as error:
        raise ValueError(str(error)) from error


def _fits(entry: FileEntry) -> bool:
    # A USTAR header keeps names of up to 100 characters as they are.
    return entry.size <= _MAX_FILE_BYTES and len(entry.path) <= 100
