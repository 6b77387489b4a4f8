"""Pooled states on their way from the device into rows on the host, while the next batches compute.

A thread receives and stores them: who launches batches waits neither for a copy nor for the host's memory to be
touched for the first time. Whether a batch is finite is found on the device and travels with it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch

from jobs.evaluate.model_sweep import Rows, all_finite

_CHUNK_BYTES: Final = 32 << 20
"""Of pinned memory, twice: one chunk is stored while the other travels."""
_MOST_UNDER_WAY: Final = 2
"""Batches that wait on the device to be copied; it holds their states that long."""


@dataclass(frozen=True)
class _Sent:
    """A batch on its way."""

    target: Rows
    batch: Sequence[int]
    pooled: Any
    """[R, L + 1, D] on the device."""
    finite: Any
    """bool [] on the device."""
    computed: Any
    """A CUDA event; None on the CPU."""


class HostCopies:
    """Copies pooled states into rows on the host; made by `copying`."""

    def __init__(self, device: torch.device, thread: ThreadPoolExecutor) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._thread = thread
        self._under_way: deque[tuple[Rows, Future[bool]]] = deque()
        self._refused: list[Rows] = []
        self._chunks: tuple[Any, ...] = ()
        self._began = time.perf_counter()
        self.first_s = 0.0
        """Until the first batch was stored."""
        self.stored_s = 0.0
        """That the thread was busy with the host's memory."""

    def send(self, target: Rows, batch: Sequence[int], pooled: Any) -> None:
        """Have pooled states [R, L + 1, D] of these prompts, places in `target.places`, stored.

        Waits while too many batches are under way; raises what stopped one before.
        """
        computed = None
        finite = all_finite(pooled)
        if self._stream is not None:
            computed = torch.cuda.Event()
            computed.record(torch.cuda.current_stream(self._device))
        sent = _Sent(target, batch, pooled, finite, computed)
        self._under_way.append((target, self._thread.submit(self._store, sent)))
        while len(self._under_way) > _MOST_UNDER_WAY:
            self._await_first()

    def finish(self) -> None:
        """Wait until all that was sent is stored.

        Raises:
            InputError: NaN or infinity was among it (prompt and layer named).
        """
        while self._under_way:
            self._await_first()
        for target in self._refused:
            target.refuse()

    def _await_first(self) -> None:
        target, stored = self._under_way.popleft()
        if not stored.result():
            self._refused.append(target)

    def _store(self, sent: _Sent) -> bool:
        """In the thread: put a batch into its rows; whether it was finite."""
        places = [sent.target.places[index] for index in sent.batch]
        with torch.inference_mode():
            if self._stream is None:
                self._put(sent.target, places, sent.pooled)
                return bool(sent.finite)
            with torch.cuda.stream(self._stream):
                self._stream.wait_event(sent.computed)
                self._receive(sent, places)
                return bool(sent.finite)

    def _put(self, target: Rows, places: Sequence[int], states: Any) -> None:
        began = time.perf_counter()
        target.array[places] = states.numpy()
        ended = time.perf_counter()
        self.stored_s += ended - began
        self.first_s = self.first_s or ended - self._began

    def _receive(self, sent: _Sent, places: Sequence[int]) -> None:
        """Through pinned memory, or copies would hold up the device; the same for all batches, as pinning is slow."""
        rows = max(1, _CHUNK_BYTES // (sent.pooled[0].numel() * sent.pooled.element_size()))
        if not self._chunks:
            shape = (rows, *sent.pooled.shape[1:])
            self._chunks = tuple(torch.empty(shape, dtype=sent.pooled.dtype, pin_memory=True) for _ in range(2))
        travelling: deque[tuple[Sequence[int], Any, Any]] = deque()

        def land() -> None:
            into, chunk, copied = travelling.popleft()
            copied.synchronize()
            self._put(sent.target, into, chunk)

        for number, first in enumerate(range(0, len(places), rows)):
            into = places[first : first + rows]
            chunk = self._chunks[number % 2][: len(into)]
            chunk.copy_(sent.pooled[first : first + rows], non_blocking=True)
            # Blocking: this thread sleeps meanwhile, and leaves its core to the one that launches.
            copied = torch.cuda.Event(blocking=True)
            copied.record()
            travelling.append((into, chunk, copied))
            if len(travelling) == 2:
                land()
        while travelling:
            land()


@contextmanager
def copying(device: torch.device) -> Iterator[HostCopies]:
    """Copy until this is left; all is stored then, unless an error leaves it.

    Raises:
        InputError: see `HostCopies.finish`.
    """
    thread = ThreadPoolExecutor(1, thread_name_prefix="host-copies")
    try:
        copies = HostCopies(device, thread)
        yield copies
        copies.finish()
    finally:
        thread.shutdown(cancel_futures=True)
