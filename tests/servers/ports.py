"""Ports for servers that a test starts, kills and starts again."""

from __future__ import annotations

import random
import socket
from pathlib import Path

_OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")
_draw = random.SystemRandom()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, drawn so that two processes do not get the same.

    Below the ports that the system gives to outgoing connections: while a server is away, none of those (a test's in
    another process, or a client's that keeps calling this very port) can take its place.
    """
    end = int(_OUTGOING.read_text().split()[0]) if _OUTGOING.exists() else 32768
    while True:
        port = _draw.randrange(max(1024, end - 16384), end)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
