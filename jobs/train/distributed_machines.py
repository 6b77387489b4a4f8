"""How the machines of a training hear of each other's end: through the store that process 0 keeps.

The first process of each machine watches its own machine's processes; here it tells the leader what became of them.
"""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import Final

from torch import distributed

from pipeline_common.errors import PipelineError, TransientError, error_class, exit_code_of

# A machine that says nothing for so long is lost; a process says something several times a second.
SILENCE_S: Final = 60.0
_GOODBYE_S: Final = 30.0
_POLL_S: Final = 0.1
_LONGEST_REASON: Final = 1000


class MachineWatch:
    """One machine's view of the others; a connection of its own, since it is used from another thread."""

    def __init__(self, machine: int, machines: int, leader: str, port: int) -> None:
        self._machine = machine
        self._others = range(1, machines)
        self._store = distributed.TCPStore(leader, port, is_master=False, timeout=timedelta(seconds=SILENCE_S))
        self._beat = 0
        self._heard: dict[int, tuple[bytes, float]] = {}
        self.ended = False
        """The leader is done."""

    def look(self) -> None:
        """Tell that this machine lives, and hear of the others.

        Raises:
            PipelineError: one of them failed or fell silent.
        """
        if self._machine == 0:
            for machine in self._others:
                self._listen(machine)
            return
        try:
            self._beat += 1
            self._store.set(f"beat/{self._machine}", str(self._beat))
            self.ended = self.ended or self._store.check(["end"])
        except distributed.DistError as error:
            if not self.ended:
                raise TransientError(
                    "machine 0, which leads, is gone; its log says why, and the same command on every machine goes on "
                    "from the last checkpoint"
                ) from error

    def _listen(self, machine: int) -> None:
        if self._store.check([f"failed/{machine}"]):
            told = json.loads(self._store.get(f"failed/{machine}"))
            raise error_class(told["code"])(f"machine {machine}: {told['reason']}")
        key, now = f"beat/{machine}", time.monotonic()
        if self._store.check([f"bye/{machine}"]) or not self._store.check([key]):
            return
        beat = self._store.get(key)
        before, since = self._heard.get(machine, (b"", now))
        self._heard[machine] = (beat, now if beat != before else since)
        if now - self._heard[machine][1] > SILENCE_S:
            raise TransientError(
                f"machine {machine} has said nothing for {SILENCE_S:.0f} s: it, or its process, is gone; the same "
                "command goes on from the last checkpoint"
            )

    def list_silent(self, limit_s: float) -> list[int]:
        """On the leader: machines that have said nothing for so long, and had not ended."""
        now = time.monotonic()
        return [
            machine
            for machine, (_, since) in sorted(self._heard.items())
            if now - since > limit_s and not self._store.check([f"bye/{machine}"])
        ]

    def report(self, error: BaseException | None) -> None:
        """Tell the leader how this machine's part ended."""
        if self._machine == 0:
            return
        try:
            if error is None:
                self._store.set(f"bye/{self._machine}", "1")
            else:
                reason = str(error) if isinstance(error, PipelineError) else f"{type(error).__name__}: {error}"
                note = {"code": exit_code_of(error), "reason": reason[:_LONGEST_REASON]}
                self._store.set(f"failed/{self._machine}", json.dumps(note))
        except distributed.DistError:
            # The leader is gone, and with it whoever could be told.
            return

    def end(self) -> None:
        """On the leader: tell the others that it is done, and let them hear it before the store goes away."""
        self._store.set("end", "1")
        until = time.monotonic() + _GOODBYE_S
        keys = [f"bye/{machine}" for machine in self._others]
        while time.monotonic() < until and not self._store.check(keys):
            if any(self._store.check([f"failed/{machine}"]) for machine in self._others):
                return
            time.sleep(_POLL_S)
