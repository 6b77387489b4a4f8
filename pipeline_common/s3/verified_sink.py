"""A file that is hashed while it arrives in pieces, so that verifying it takes no time after its last byte."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_READ_BYTES: Final = 1 << 19


class VerifiedSink:
    """What a download's parts are kept in, in any order and from any threads.

    A piece that continues what is hashed is hashed where it is kept, while the processor's cache still holds it. One
    thread follows with `hash_until_written`, for what was kept before its turn: it reads that from the file. Bytes that
    are kept again after they were hashed (a part that was cut off and fetched anew) are hashed again at the end.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b", buffering=0)
        self._changed = threading.Condition()
        # Kept pieces beyond the gapless start, their ends by their starts.
        self._stretches: dict[int, int] = {}
        self._gapless = 0
        self._hashed = 0
        # The hash is with one thread at a time: whoever claimed the bytes up to `_hashed`.
        self._hashing = False
        self._rewritten = False
        self._written = False
        self._keeping = 0
        self._closed = False
        self._hash = hashlib.sha256()

    def __enter__(self) -> Self:
        """Use it as a context: the file is closed at the end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file, after the pieces that are being kept: its descriptor may be another file's next."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: self._keeping == 0)
        self._file.close()

    def keep(self, offset: int, content: bytes) -> None:
        """Write a piece at its place, and hash it when it is its turn.

        Raises:
            ValueError: the file was closed.
            OSError: it cannot be written, as on a full disk.
        """
        view = memoryview(content)
        with self._changed:
            if self._closed:
                raise ValueError("a piece came after its file was closed")
            self._keeping += 1
            mine = offset == self._hashed and not self._hashing
            if mine:
                # Claimed before it is written: whoever writes there from now on writes after it.
                self._hashing, self._hashed = True, offset + len(view)
        kept = False
        try:
            done = 0
            while done < len(view):
                done += os.pwrite(self._file.fileno(), view[done:], offset + done)
            if mine:
                self._hash.update(view)
            kept = True
        finally:
            with self._changed:
                self._keeping -= 1
                self._hashing = self._hashing and not mine
                if not kept or (not mine and offset < self._hashed):
                    self._rewritten = True
                if kept:
                    self._stretches[offset] = max(offset + len(view), self._stretches.get(offset, 0))
                    self._join()
                # Waking the follower for nothing costs more than the rest of this.
                if self._gapless > self._hashed or self._written or self._closed:
                    self._changed.notify_all()

    def end(self) -> None:
        """Nothing more will be kept: what `hash_until_written` waits for."""
        with self._changed:
            self._written = True
            self._changed.notify_all()

    def hash_until_written(self) -> str:
        """Follow the pieces until `end`; hex sha256 of the whole file.

        Raises:
            OSError: the file is shorter than what was written into it.
        """
        buffer = memoryview(bytearray(_READ_BYTES))
        while (stretch := self._claim()) is not None:
            start, end = stretch
            while start < end:
                count = os.preadv(self._file.fileno(), [buffer[: end - start]], start)
                if count == 0:
                    raise OSError(f"{self._file.name} ended at {start} bytes; {end} were written")
                self._hash.update(buffer[:count])
                start += count
            with self._changed:
                self._hashing = False
        return self._hash.hexdigest()

    def _claim(self) -> tuple[int, int] | None:
        """The next bytes to read and hash, waited for; None when all are hashed and none will come."""
        with self._changed:
            self._changed.wait_for(
                lambda: not self._hashing and (self._gapless > self._hashed or (self._written and self._keeping == 0))
            )
            upto = self._gapless
            if self._written:
                if self._rewritten:
                    self._rewritten, self._hashed, self._hash = False, 0, hashlib.sha256()
                upto = os.fstat(self._file.fileno()).st_size
            if upto <= self._hashed:
                return None
            # Claimed before it is read: a write into it from now on counts as one after it.
            start, self._hashed = self._hashed, min(upto, self._hashed + _READ_BYTES)
            self._hashing = True
            return start, self._hashed

    def _join(self) -> None:
        """Let the gapless start of the file grow over the stretches that touch it."""
        while touching := [start for start in self._stretches if start <= self._gapless]:
            for start in touching:
                self._gapless = max(self._gapless, self._stretches.pop(start))
