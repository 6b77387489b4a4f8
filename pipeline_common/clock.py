"""How long each phase of a stage took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pipeline_common.logs import get_logger

_log = get_logger(__name__)


@dataclass
class PhaseClock:
    """Seconds of each phase, for a stage's summary only: times never enter a result."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time what is done inside; a phase that fails leaves no time."""
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 2)
        _log.debug("%s: %.2f s", name, self.seconds[name])
