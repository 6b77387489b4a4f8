"""A file that is hashed while it arrives in pieces, so that verifying it takes no time after its last byte."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_READ_BYTES: Final = 4 << 20


class VerifiedSink:
    """What the transfer manager writes a download's parts into, in any order.

    One thread follows with `hash_until_written`: it reads what lies gaplessly from the start and hashes it. Bytes that
    are written again after they were hashed (a part that was cut off and fetched anew) are hashed again at the end.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b", buffering=0)
        self._position = 0
        self._changed = threading.Condition()
        # Written pieces beyond the gapless start, their ends by their starts.
        self._stretches: dict[int, int] = {}
        self._gapless = 0
        self._hashed = 0
        self._rewritten = False
        self._written = False
        self._hash = hashlib.sha256()

    def __enter__(self) -> Self:
        """Use it as a context: the file is closed at the end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._file.close()

    def seekable(self) -> bool:
        """The transfer manager writes parts in parallel only where it can seek."""
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

    def write(self, content: bytes) -> int:
        """Write at the position; the manager does so from one thread."""
        view = memoryview(content)
        done = 0
        while done < len(view):
            done += os.pwrite(self._file.fileno(), view[done:], self._position + done)
        with self._changed:
            start, end = self._position, self._position + done
            self._position = end
            self._rewritten = self._rewritten or start < self._hashed
            self._stretches[start] = max(end, self._stretches.get(start, end))
            self._join()
            self._changed.notify()
        return done

    def end(self) -> None:
        """Nothing more will be written: what `hash_until_written` waits for."""
        with self._changed:
            self._written = True
            self._changed.notify()

    def hash_until_written(self) -> str:
        """Follow the writer until `end`; hex sha256 of the whole file as it then lies on the disk.

        Raises:
            OSError: the file is shorter than what was written into it.
        """
        piece = memoryview(bytearray(_READ_BYTES))
        while (stretch := self._claim()) is not None:
            start, end = stretch
            while start < end:
                count = os.preadv(self._file.fileno(), [piece[: end - start]], start)
                if count == 0:
                    raise OSError(f"{self._file.name} ended at {start} bytes; {end} were written")
                self._hash.update(piece[:count])
                start += count
        return self._hash.hexdigest()

    def _claim(self) -> tuple[int, int] | None:
        """The next bytes to hash, waited for; None when all are hashed and none will come."""
        with self._changed:
            self._changed.wait_for(lambda: self._written or self._gapless > self._hashed)
            upto = self._gapless
            if self._written:
                if self._rewritten:
                    self._rewritten, self._hashed, self._hash = False, 0, hashlib.sha256()
                upto = os.fstat(self._file.fileno()).st_size
            if upto <= self._hashed:
                return None
            # Claimed before it is read: a write into it from now on counts as one after it.
            start, self._hashed = self._hashed, min(upto, self._hashed + _READ_BYTES)
            return start, self._hashed

    def _join(self) -> None:
        """Let the gapless start of the file grow over the stretches that touch it."""
        while touching := [start for start in self._stretches if start <= self._gapless]:
            for start in touching:
                self._gapless = max(self._gapless, self._stretches.pop(start))
