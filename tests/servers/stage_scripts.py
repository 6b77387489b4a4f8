"""Scripts of stages: what happens to a Job, step by step."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_UNTIL_S = 60.0


@dataclass(frozen=True)
class Step:
    """What happens next to a Job.

    `kind`: exit, oom, evicted, unschedulable, image, secret, quota, suspended, deadline, hang (runs until the Job is
    deleted or suspended). Waiting states last `seconds`, or until the test has seen what it waits for and sets `until`;
    then the next step follows. A running Job that someone suspends (`spec.suspend`) loses its pods, told to stop, and
    goes on with the next step once it is resumed.
    """

    kind: str
    code: int = 0
    seconds: float = 0.02
    log: tuple[str, ...] = ()
    until: threading.Event | None = None

    def is_over(self, began: float) -> bool:
        """Whether it has lasted long enough since `began`, a moment of the monotonic clock."""
        elapsed = time.monotonic() - began
        if self.until is None:
            return elapsed >= self.seconds
        # When nobody ends it, the next step follows too, and the test says what was never seen.
        return self.until.is_set() or elapsed >= _UNTIL_S

    def last(self) -> None:
        """Return when it is over."""
        began = time.monotonic()
        while not self.is_over(began):
            time.sleep(0.01)


Script = Sequence[Step] | Mapping[int, Sequence[Step]]
"""Of a Job's pod, or of each index of an Indexed Job."""
