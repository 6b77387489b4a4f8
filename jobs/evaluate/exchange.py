"""What the processes of one evaluation hand each other: parts of the results, and what all must agree on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from jobs.evaluate.machine_failures import MachineFailures
from jobs.evaluate.parts import AREA, Label, Part, PartStores
from jobs.evaluate.sharing import Shard
from pipeline_common.context import Context
from pipeline_common.errors import PipelineError, TransientError
from pipeline_common.logs import get_logger
from pipeline_common.measures import Degradation
from pipeline_common.stages import fingerprint_of

_FIRST_POLL_S: Final = 0.005
_LOCAL_POLL_S: Final = 0.1
_REMOTE_POLL_S: Final = 1.0
_TOLD_AFTER_S: Final = 3.0
_TOLD_EVERY_S: Final = 30.0
_log = get_logger(__name__)
_Found = TypeVar("_Found")


class LeaderFinishedError(Exception):
    """The stage's artifact is there: nobody waits for this process any more."""


class Exchange:
    """One process's view; every process agrees on the same things in the same order."""

    def __init__(self, context: Context, shard: Shard, folder: Path, tables: Mapping[str, int] = {}) -> None:
        """Look at the stores.

        Args:
            context: of the stage; its work folder is this process's own.
            shard: which process this is.
            folder: shared by the processes of the leader's machine.
            tables: descriptors that the processes of the leader's machine share, by name, where there are several (see
                `shared_tables`).
        """
        self.shard = shard
        self.waited_s = 0.0
        self.look_after: Callable[[], None] = lambda: None
        """Called while waiting; raises when nobody is left to wait for."""
        self.kept_s = 0.0
        """Spent on keeping parts and messages."""
        self.degradations: list[Degradation] = []
        self._context = context
        self._parts = PartStores(context, shard.count, folder, tables)
        self._finished = context.store.read_manifest(context.planned.key) if context.member.index else None
        self._agreed = ""
        self.failures = MachineFailures(context.store, f"{AREA}/{context.planned.fingerprint}", context.member)

    def settle(self, name: str, make: Callable[[], Any], accept: Callable[[Any], bool] = lambda _: True) -> Any:
        """Leader: say what holds from here on; what an earlier attempt said holds still, for others may have heard it.

        Args:
            name: of what is agreed on.
            make: JSON.
            accept: whether what an earlier attempt said can still be followed.
        """
        assert self.shard.leads
        label = Label(name, 0, self._agreed, "message")
        found = self._parts.find(label)
        if found is None or not accept(found.records):
            found = self._keep(label, Part(json.loads(json.dumps(make()))))
        self._agree(name, found.records)
        return found.records

    def hear(self, name: str, accept: Callable[[Any], bool] = lambda _: True, otherwise: str = "") -> Any:
        """Follower: wait until the leader has settled something.

        Args:
            name: of what is agreed on.
            accept: whether this process can follow; until then the leader may still change its mind.
            otherwise: said when it never could.
        """
        label = Label(name, 0, self._agreed, "message")

        def look() -> Part | None:
            found = self._parts.find(label)
            return found if found is not None and accept(found.records) else None

        found = self._await(look, lambda: f"the leader's {name}{otherwise}")
        self._agree(name, found.records)
        return found.records

    def contribute(self, name: str, make: Callable[[], Part], *, tensors: bool = False) -> Part:
        """This process's part: an earlier attempt's, or made and kept now.

        Args:
            name: of the phase.
            make: makes the part.
            tensors: whether this phase fills a table; the leader's own part is not kept.
        """
        if tensors and self.shard.leads:
            return make()
        label = Label(name, self.shard.index, self._agreed, "tensors" if tensors else "records")
        found = self._parts.find(label)
        if found is not None:
            _log.info("%s: this shard's part was finished by an earlier attempt", name)
            return found
        return self._keep(label, make())

    def open_table(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
        """Where the processes of the leader's machine write rows; None on another machine."""
        return self._parts.open_table(name, self.shard.index, shape)

    def gather(self, name: str, own: Part, *, tensors: bool = False) -> list[Part]:
        """Leader: everybody's part, in the order of the shards; `tensors` as for `contribute`."""
        assert self.shard.leads
        found: dict[int, Part] = {0: own}
        while missing := [index for index in range(self.shard.count) if index not in found]:

            def look(missing: Sequence[int] = missing) -> tuple[int, Part] | None:
                for index in missing:
                    part = self._parts.find(Label(name, index, self._agreed, "tensors" if tensors else "records"))
                    if part is not None:
                        return index, part
                self.failures.heed()
                return None

            def whom(missing: Sequence[int] = missing) -> str:
                return f"{name} of {self._parts.describe(missing)}"

            index, part = self._await(look, whom)
            found[index] = part
        parts = [found[index] for index in range(self.shard.count)]
        self.degradations += [one for part in parts for one in part.degradations if one not in self.degradations]
        return parts

    def clean(self) -> None:
        """Leader: remove from the artifact store what passed through it, once the stage's artifact is there."""
        if not self._parts.many_machines:
            return
        try:
            self._parts.withdraw_all()
            self.failures.forget()
        except PipelineError as error:
            # The results are safe; a retry of the whole stage would not remove these either.
            planned, store = self._context.planned, self._context.store
            _log.warning("%s/%s... are left in %s: %s", AREA, planned.fingerprint, store.uri, error)

    def _keep(self, label: Label, part: Part) -> Part:
        began = time.monotonic()
        self._parts.keep(label, part)
        self.kept_s += time.monotonic() - began
        return part

    def _agree(self, name: str, content: Any) -> None:
        self._agreed = fingerprint_of({"before": self._agreed, "name": name, "content": content})

    def _await(self, look: Callable[[], _Found | None], whom: Callable[[], str]) -> _Found:
        """Look until there is something.

        Raises:
            TransientError: nothing came for `runtime.peers_timeout_s`.
            LeaderFinishedError: the stage's artifact has appeared meanwhile.
        """
        limit = self._context.config.runtime.peers_timeout_s
        began, told = time.monotonic(), _TOLD_AFTER_S
        while (found := look()) is None:
            waited = time.monotonic() - began
            if waited >= limit:
                raise TransientError(
                    f"waited {waited:.0f} s (runtime.peers_timeout_s={limit:g}) for {whom()}; "
                    "is that process still running, with the same configuration and code?"
                )
            self._require_unfinished()
            self._context.stop.heed()
            self.look_after()
            if waited >= told:
                _log.info("waiting for %s since %.0f s", whom(), waited)
                told = waited + _TOLD_EVERY_S
            time.sleep(_REMOTE_POLL_S if self._parts.many_machines else _local_poll_s(waited))
        self.waited_s += time.monotonic() - began
        return found

    def _require_unfinished(self) -> None:
        if self._context.member.index == 0:
            return
        now = self._context.store.read_manifest(self._context.planned.key)
        if now is not None and now != self._finished:
            raise LeaderFinishedError


def _local_poll_s(waited: float) -> float:
    """Often at first, when processes that have as much to do are to be met; then a twentieth of what was waited."""
    return min(_LOCAL_POLL_S, max(_FIRST_POLL_S, waited / 20))
