"""Which of the processes this is, and the store through which they find each other; process 0 keeps it."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from torch import distributed

from pipeline_common.errors import ConfigError, TransientError
from pipeline_common.logs import get_logger

LOCAL: Final = "127.0.0.1"
# Pods of one Job start minutes apart where an image is pulled; afterwards all wait for the slowest load.
MEETING_S: Final = 900.0
TELL_EVERY_S: Final = 15.0
_log = get_logger(__name__)


@dataclass(frozen=True)
class Place:
    """Which of the processes this is."""

    rank: int
    """0 ... processes - 1."""
    processes: int
    local_rank: int
    """0 ... per_machine - 1; the number of its GPU."""
    per_machine: int

    @property
    def leads(self) -> bool:
        """Whether this is process 0."""
        return self.rank == 0

    @property
    def machine(self) -> int:
        """0 ... machines - 1."""
        return self.rank // self.per_machine

    @property
    def machines(self) -> int:
        """How many there are."""
        return self.processes // self.per_machine

    def describe(self) -> str:
        """As in messages."""
        where = f", process {self.local_rank} of machine {self.machine}" if self.machines > 1 else ""
        return f"process {self.rank} of {self.processes}{where}"


def open_store(place: Place, leader: str, port: int) -> Any:
    """The store: made by process 0, found by the others as soon as its machine has a name and listens.

    Args:
        place: which process this is.
        leader: host name of process 0's machine.
        port: 0 on the leader takes any free one.

    Raises:
        ConfigError: process 0 cannot listen on the port.
        TransientError: process 0 was not reached.
    """
    if place.leads:
        try:
            return _connect(leader, port, leads=True)
        except distributed.DistError as error:
            raise ConfigError(
                f"port {port} cannot be listened on ({first_line(error)}); set LEADER_PORT to a free one"
            ) from error
    await_name(leader, MEETING_S)
    end = time.monotonic() + MEETING_S
    while True:
        try:
            return _connect(leader, port, leads=False)
        except distributed.DistError as error:
            if time.monotonic() > end:
                raise TransientError(
                    f"{place.describe()} did not reach {leader}:{port} within {MEETING_S:.0f} s: {first_line(error)}; "
                    "does the machine that leads still run, and may it be reached there?"
                ) from error
            _log.info("waiting for %s:%d", leader, port)
            time.sleep(1.0)


def _connect(host: str, port: int, *, leads: bool) -> Any:
    """A connection is tried for some seconds only, so that SIGTERM is obeyed in between; then calls may take longer."""
    store = distributed.TCPStore(
        host, port, is_master=leads, timeout=timedelta(seconds=TELL_EVERY_S), wait_for_workers=False
    )
    store.set_timeout(timedelta(seconds=MEETING_S))
    return store


def await_name(host: str, limit_s: float) -> None:
    """Wait until a host name resolves: a headless Service knows a pod only when it has started.

    Raises:
        TransientError: it does not.
    """
    end, told = time.monotonic() + limit_s, time.monotonic() - TELL_EVERY_S
    while True:
        try:
            socket.getaddrinfo(host, None)
        except OSError as error:
            if time.monotonic() > end:
                raise TransientError(
                    f"{host} did not resolve within {limit_s:.0f} s: {error}; it must be the name or address of the "
                    "machine that leads (LEADER_ADDRESS)"
                ) from error
            if time.monotonic() - told >= TELL_EVERY_S:
                told = time.monotonic()
                _log.info("waiting for %s to resolve: %s", host, error)
            time.sleep(min(1.0, limit_s))
        else:
            return


def first_line(error: BaseException) -> str:
    """What a library says about an error, without its stack of frames."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
