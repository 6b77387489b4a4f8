"""Whether the bucket holds an object already, as an earlier attempt sent it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from pipeline_common.s3.transfer import PART_BYTES, Upload


def is_sent(item: Upload, found: Mapping[str, Any] | None) -> bool:
    """True when the bucket holds exactly these bytes, by the MD5 that the server computed from what it stored."""
    if found is None or found["Size"] != item.size:
        return False
    etag = str(found.get("ETag", "")).strip('"')
    return etag in {_whole_md5(item), _parts_md5(item)}


def _whole_md5(item: Upload) -> str:
    if not item.large:
        return hashlib.md5(item.content(), usedforsecurity=False).hexdigest()
    with item.file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _parts_md5(item: Upload) -> str:
    """The ETag that most servers give to an upload in parts: the MD5 of the parts' MD5s, and their number."""
    if item.size < PART_BYTES:
        return ""
    digests = []
    with item.file.open("rb") as stream:
        while part := stream.read(PART_BYTES):
            digests.append(hashlib.md5(part, usedforsecurity=False).digest())
    return f"{hashlib.md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"
