"""Tables that the processes of a machine fill together: memory without a name, gone with the last process that has it.

A process that starts others makes one descriptor per table beforehand and passes it on; whoever comes first gives the
table its size. Memory counts towards the process that first touches it, as a file in memory: a container's limit
covers it once for all of them.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline_common.logs import get_logger

_POPULATE_WRITE: Final = 23
"""Linux' MADV_POPULATE_WRITE (5.14): pages are made ready for writing, and keep what they hold."""
_log = get_logger(__name__)


@contextmanager
def shared_tables(names: Iterable[str], folder: Path) -> Iterator[Mapping[str, int]]:
    """Empty tables, as descriptors for `map_table` here and in children that inherit them.

    Args:
        names: of the tables.
        folder: where they are kept by a system that has no memory without a name; it must exist.
    """
    descriptors: dict[str, int] = {}
    try:
        for name in names:
            descriptors[name] = _open_nameless(name, folder)
        yield descriptors
    finally:
        # What is mapped stays so.
        for descriptor in descriptors.values():
            os.close(descriptor)


def _open_nameless(name: str, folder: Path) -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name)
    # A file that has lost its name already is as good, if slower.
    with tempfile.TemporaryFile(dir=folder) as file:
        return os.dup(file.fileno())


def map_table(descriptor: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A table, the same memory in every process that maps it.

    Args:
        descriptor: of `shared_tables`; may be closed afterwards.
        shape: the same in all processes.

    Returns:
        Zeros where nobody has written yet.
    """
    size = np.dtype(np.float32).itemsize * math.prod(shape)
    given = os.fstat(descriptor).st_size
    if given not in (0, size):
        raise AssertionError(f"a table of {given} bytes cannot have the shape {shape}: the processes do not agree")
    # Of several that come first at once, all give it the same size.
    os.ftruncate(descriptor, size)
    return np.frombuffer(mmap.mmap(descriptor, size), dtype=np.float32).reshape(shape)


@contextmanager
def populating(regions: Sequence[tuple[NDArray[np.float32], Sequence[int]]]) -> Iterator[None]:
    """Have memory ready by the time that it is written: a thread asks the kernel for it, row by row, in this order.

    To write to a page for the first time costs ten times what writing costs, and the last batch would wait for it. A
    kernel that cannot (older than 5.14, or not Linux) does so when it is written, as always.

    Args:
        regions: contiguous arrays, and which of their rows this process will write.
    """
    left = threading.Event()

    def populate() -> None:
        for array, rows in regions:
            for row in rows:
                if left.is_set():
                    return
                if (failure := _populate(array, row)) is not None:
                    _log.debug("memory is laid out when it is written: %s", failure)
                    return

    thread = threading.Thread(target=populate, name="populating", daemon=True)
    if sys.platform == "linux":
        thread.start()
    try:
        yield
    finally:
        left.set()
        if thread.is_alive():
            thread.join()


def _populate(array: NDArray[np.float32], row: int) -> str | None:
    """Make the pages of a row writable at once; why the kernel did not."""
    # Not `mmap.madvise`: it keeps the interpreter from all other threads meanwhile.
    begin = array.ctypes.data + row * array.strides[0]
    end = begin + array.strides[0]
    begin -= begin % mmap.PAGESIZE
    end += -end % mmap.PAGESIZE
    if _libc().madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _POPULATE_WRITE) == 0:
        return None
    return os.strerror(ctypes.get_errno())


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
