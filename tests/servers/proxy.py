"""A TCP proxy between a client and a real server that lets a test act in the middle of a transfer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


class Proxy:
    """Passes bytes on in both directions, and calls back once when so many have passed."""

    def __init__(self, upstream_port: int) -> None:
        self._upstream = upstream_port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.passed = {"up": 0, "down": 0}
        self._lock = threading.Lock()
        self._hook: tuple[str, int, Callable[[], None]] | None = None
        threading.Thread(target=self._accept, daemon=True).start()

    def once(self, direction: str, after_bytes: int, act: Callable[[], None]) -> None:
        """Call `act` when so many more bytes have gone `up` (to the server) or `down`; they wait meanwhile."""
        with self._lock:
            self._hook = (direction, self.passed[direction] + after_bytes, act)

    def close(self) -> None:
        """Stop accepting."""
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._upstream), 5)
                except OSError:
                    client.close()
                    continue
                for source, sink, direction in ((client, server, "up"), (server, client, "down")):
                    threading.Thread(target=self._pass, args=(source, sink, direction), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, direction: str) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                self._count(direction, len(data))
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _count(self, direction: str, count: int) -> None:
        with self._lock:
            self.passed[direction] += count
            if self._hook is None or self._hook[0] != direction or self.passed[direction] < self._hook[1]:
                return
            act, self._hook = self._hook[2], None
        act()


@contextmanager
def proxied(upstream_port: int) -> Iterator[Proxy]:
    """A proxy in front of a server on this machine."""
    proxy = Proxy(upstream_port)
    try:
        yield proxy
    finally:
        proxy.close()
