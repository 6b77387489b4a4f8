"""Several processes that train together: how they meet, talk, stop together, and hear of one that fails.

Process 0 is the stage itself, on the machine that leads; the others follow. Gradients travel through torch.distributed
(NCCL between GPUs, Gloo between CPUs). What is said besides (who is there, SIGTERM, failures) goes through a store that
process 0 keeps, and through a Gloo group.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final

import torch
from torch import distributed

from jobs.train.distributed_machines import MachineWatch
from jobs.train.distributed_store import MEETING_S, TELL_EVERY_S, Place, first_line, open_store
from pipeline_common.errors import ConfigError, PipelineError, TransientError
from pipeline_common.logs import get_logger

# Longer than anything that process 0 does while the others wait: copying a checkpoint to a bucket that comes and goes.
COLLECTIVE_S: Final = 600.0
_POLL_S: Final = 0.3
# An error of the library may arrive before its cause does.
_CAUSE_S: Final = 10.0
# What is blocked in a library after its connections were cut is not waited for any longer.
_UNBLOCK_S: Final = 30.0
_VARIABLES: Final = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_log = get_logger(__name__)


class Team:
    """This process's connection to the others; made before anything is loaded, usable after `meet`."""

    def __init__(self, place: Place, leader: str, port: int, check: Callable[[], None] = lambda: None) -> None:
        """Open or find the store.

        Args:
            place: which process this is.
            leader: host name of process 0's machine.
            port: 0 on the leader takes any free one.
            check: raises the error of a child process that failed.
        """
        self.place = place
        self.backend = "gloo"
        self.stopping = False
        """SIGTERM was agreed on: every process ends after this step."""
        self._leader = leader
        self._check = check
        self._failure: PipelineError | None = None
        self._over = threading.Event()
        self._talk: Any = None
        self._outer: dict[str, str | None] = {}
        self._store = open_store(place, leader, port)
        self.port = int(self._store.port)
        self._machines = None
        if place.machines > 1 and place.local_rank == 0:
            self._machines = MachineWatch(place.machine, place.machines, leader, self.port)
        if place.local_rank == 0:
            threading.Thread(target=self._watch, name="team", daemon=True).start()

    @property
    def met(self) -> bool:
        """Whether the others can be spoken to."""
        return self._talk is not None

    def meet(self, device: str, traits: Mapping[str, Any]) -> None:
        """Wait until everyone is there, connect, and see that all compute alike.

        Args:
            device: `cpu` or `cuda`; a GPU has been chosen.
            traits: what must be the same everywhere.

        Raises:
            TransientError: some did not come.
            ConfigError: two differ.
        """
        place = self.place
        self._store.set(f"here/{place.rank}", socket.gethostname())
        self._await([f"here/{rank}" for rank in range(place.processes)])
        self.backend = "nccl" if device == "cuda" else "gloo"
        if place.machines == 1 and sys.platform == "linux":
            # A host name need not resolve, and nothing leaves this machine.
            self._set("GLOO_SOCKET_IFNAME", os.environ.get("GLOO_SOCKET_IFNAME", "lo"))
        numbers = (place.rank, place.processes, place.local_rank, place.per_machine, self._leader, self.port)
        for name, value in zip(_VARIABLES, numbers, strict=True):
            self._set(name, str(value))
        distributed.init_process_group(
            self.backend,
            store=distributed.PrefixStore("gradients", self._store),
            rank=place.rank,
            world_size=place.processes,
            timeout=timedelta(seconds=COLLECTIVE_S),
            device_id=torch.device("cuda", place.local_rank) if device == "cuda" else None,
        )
        self._talk = distributed.new_group(backend="gloo", timeout=timedelta(seconds=COLLECTIVE_S))
        for rank, others in enumerate(self.gather(dict(traits))):
            differing = sorted(name for name in traits.keys() | others.keys() if traits.get(name) != others.get(name))
            if differing:
                name = differing[0]
                raise ConfigError(
                    f"process {rank} has {name}={others.get(name)!r}, process {place.rank} has {traits.get(name)!r}: "
                    "all processes of a training must have the same packages, arithmetic and rows"
                )
        _log.info("%s: met through %s:%d, %s", place.describe(), self._leader, self.port, self.backend)

    def _await(self, keys: list[str]) -> None:
        end, told = time.monotonic() + MEETING_S, time.monotonic()
        while missing := [key for key in keys if not self._store.check([key])]:
            if self._failure is not None:
                raise self._failure
            names = ", ".join(key.removeprefix("here/") for key in missing)
            if time.monotonic() > end:
                raise TransientError(
                    f"waited {MEETING_S:.0f} s for {len(keys)} processes; these did not come: {names}; see their logs"
                )
            if time.monotonic() - told > TELL_EVERY_S:
                told = time.monotonic()
                _log.info("waiting for process %s of %d", names, len(keys))
            time.sleep(_POLL_S)

    def _set(self, name: str, value: str) -> None:
        self._outer.setdefault(name, os.environ.get(name))
        os.environ[name] = value

    def gather(self, value: Any) -> list[Any]:
        """One small value of each process, by rank, at every process."""
        found: list[Any] = [None] * self.place.processes
        distributed.all_gather_object(found, value, group=self._talk)
        return found

    def share(self, value: Any) -> Any:
        """Process 0's value at every process; theirs does not matter."""
        box = [value]
        distributed.broadcast_object_list(box, src=0, group=self._talk)
        return box[0]

    def agree_to_stop(self, requested: bool) -> bool:
        """Whether SIGTERM has reached any process; asked by all after the same step."""
        flag = torch.tensor([int(requested)])
        distributed.all_reduce(flag, op=distributed.ReduceOp.MAX, group=self._talk)
        self.stopping = bool(flag.item())
        return self.stopping

    def explain(self, error: Exception) -> Exception:
        """The failure of another process that stands behind an error here, or the error itself."""
        if isinstance(error, PipelineError):
            return error
        end = time.monotonic() + _CAUSE_S
        while self._failure is None and time.monotonic() < end:
            self._look()
            time.sleep(_POLL_S)
        if self._failure is None and self.place.leads and self._machines is not None:
            # What breaks a connection at once is told long before the silence would be.
            silent = self._machines.list_silent(_CAUSE_S / 2)
            if silent:
                names = ", ".join(f"machine {machine}" for machine in silent)
                return TransientError(
                    f"{names}: gone, or cut off ({first_line(error)}); the same command on every machine goes on from "
                    "the last checkpoint"
                )
        return self._failure or error

    def _watch(self) -> None:
        """In a thread of its own: the main one may be blocked in a library."""
        while self._failure is None:
            if self._over.wait(_POLL_S):
                return
            self._look()
        if self._talk is not None and self.backend == "nccl":
            # NCCL waits for a lost process as long as for a slow one.
            distributed.distributed_c10d._abort_process_group()
        if not self._over.wait(_UNBLOCK_S):
            sys.stderr.write(f"train: {self._failure}\n")
            os._exit(self._failure.exit_code)

    def _look(self) -> None:
        try:
            self._check()
            if self._machines is not None:
                self._machines.look()
        except PipelineError as failure:
            self._failure = self._failure or failure

    def part(self, error: BaseException | None) -> None:
        """On a machine that does not lead: tell the leader how it went here; after success, wait until it has ended."""
        if self._machines is None or self.place.leads:
            return
        while error is None and not self._machines.ended:
            if self._failure is not None:
                raise self._failure
            time.sleep(_POLL_S)
        # The leader keeps its store until it has heard this.
        self._machines.report(error)

    def close(self) -> None:
        """Leave; the environment is as before. A second call does nothing."""
        if self._over.is_set():
            return
        self._over.set()
        if self.place.leads and self._machines is not None:
            self._machines.end()
        if self._talk is not None and self._failure is None and distributed.is_initialized():
            distributed.destroy_process_group()
        for name, value in self._outer.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        from accelerate.state import AcceleratorState

        # It is kept for the whole process, and would take the next trainer's for one of several, too.
        AcceleratorState._reset_state(reset_partial_state=True)
