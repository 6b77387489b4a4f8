"""Downloads by the transfer manager whose bytes do not pass through its queue.

The manager hands every piece that it has read to one thread, which writes it: the piece is allocated, leaves the
processor's cache and is read again to be hashed. With the client of this module a piece is written and hashed by the
thread that read it, and the manager, which divides objects into parts, repeats requests and tells of its progress,
handles lengths alone. On a machine of few cores that pays for the hash.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from pipeline_common.s3.verified_sink import VerifiedSink

# What is hashed should still be in the cache that it was read into.
_PIECE_BYTES: Final = 1 << 20
# A slow connection's bytes are told of, and its cancellation noticed, after so long.
_LONGEST_READ_S: Final = 0.25


@dataclass(frozen=True)
class Kept:
    """Stands in the manager's queue for bytes that are in their file already."""

    length: int

    def __len__(self) -> int:
        """Bytes."""
        return self.length


class DirectFile:
    """The file as the manager sees it: what it writes there has been kept before."""

    def __init__(self, sink: VerifiedSink) -> None:
        self._sink = sink
        self._position = 0

    def seekable(self) -> bool:
        """The manager reads parts in parallel only where it can seek."""
        return True

    def tell(self) -> int:
        """Where the next write goes."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Where the next write goes; from the start only.

        Raises:
            ValueError: from anywhere else.
        """
        if whence != os.SEEK_SET:
            raise ValueError(f"seek from the start only; asked for whence={whence}")
        self._position = offset
        return offset

    def write(self, content: Kept | bytes) -> int:
        """Keep what was not kept yet: the manager's own empty piece of an empty object."""
        if not isinstance(content, Kept):
            self._sink.keep(self._position, content)
        self._position += len(content)
        return len(content)


class PartBody:
    """An answer's body; what is read of it is in its file when `read` returns."""

    def __init__(self, body: Any, sink: VerifiedSink, offset: int) -> None:
        self._body = body
        self._sink = sink
        self._offset = offset

    def read(self, amount: int) -> Kept | bytes:
        """The next bytes, at most `amount`: how many; the empty string at the end."""
        kept = 0
        until = time.monotonic() + _LONGEST_READ_S
        while kept < amount and (not kept or time.monotonic() < until):
            content: bytes = self._body.read(min(_PIECE_BYTES, amount - kept))
            if not content:
                break
            self._sink.keep(self._offset, content)
            self._offset += len(content)
            kept += len(content)
        return Kept(kept) if kept else b""


class DirectClient:
    """An S3 client for the transfer manager: the objects named by `keeping` go into their sinks as they are read."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._sinks: dict[str, VerifiedSink] = {}

    def __getattr__(self, name: str) -> Any:
        """Everything else is the client's own."""
        return getattr(self._client, name)

    @contextmanager
    def keeping(self, key: str, sink: VerifiedSink) -> Iterator[DirectFile]:
        """What to give the manager as the target of object `key`, while it is downloaded."""
        self._sinks[key] = sink
        try:
            yield DirectFile(sink)
        finally:
            del self._sinks[key]

    def get_object(self, **request: Any) -> dict[str, Any]:
        """One part, or a small object."""
        answer: dict[str, Any] = self._client.get_object(**request)
        answer["Body"] = PartBody(answer["Body"], self._sinks[request["Key"]], _first_byte(request.get("Range")))
        return answer


def _first_byte(requested: str | None) -> int:
    """Where a range `bytes=FIRST-LAST` begins; 0 for the whole object."""
    return int(requested.removeprefix("bytes=").partition("-")[0]) if requested else 0
