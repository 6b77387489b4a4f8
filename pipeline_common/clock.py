"""Where a stage's seconds went: each phase by name, and of which kind it was."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from pipeline_common.logs import get_logger
from pipeline_common.progress import tell_phase

KINDS: Final = ("imports", "load", "compile", "compute", "transfer", "rows")
"""Libraries; models from local files; kernels; the work itself; artifacts and their checksums; rows of the database."""
_log = get_logger(__name__)


@dataclass
class PhaseClock:
    """Seconds of each phase, for manifests and summaries only: times never enter a result.

    A phase inside another one is taken off the outer one, so the phases add up to no more than the wall clock's time.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    before_phase: Callable[[], None] = lambda: None
    """Called when a phase begins; what it raises ends the work there."""
    _inside: float = 0.0
    """Seconds of the phases that ended inside the present one."""

    @contextmanager
    def phase(self, name: str, kind: str | None = None) -> Iterator[None]:
        """Time what is done inside; a phase that fails leaves no time, one of the same name adds up.

        Args:
            name: what is done, in a few words.
            kind: one of `KINDS`; None = the name where that is one, else "compute".

        Raises:
            ValueError: no such kind.
        """
        kind = kind or (name if name in KINDS else "compute")
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is no kind of phase; expected one of {', '.join(KINDS)}")
        self.before_phase()
        outer, self._inside = self._inside, 0.0
        started = time.monotonic()
        try:
            with tell_phase(name):
                yield
        finally:
            spent, inside = time.monotonic() - started, self._inside
            self._inside = outer + spent
        self.seconds[name] = round(self.seconds.get(name, 0.0) + spent - inside, 2)
        self.kinds[name] = kind
        _log.debug("%s: %.2f s", name, self.seconds[name])

    def record(self) -> list[Mapping[str, Any]]:
        """The phases in the order they ended first, as JSON."""
        return [{"phase": name, "kind": self.kinds[name], "seconds": spent} for name, spent in self.seconds.items()]
