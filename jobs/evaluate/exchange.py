"""What the processes of one evaluation hand each other: parts of the results, and what all must agree on.

Each is a small artifact of its own under `evaluation_parts/`, its files compared with their sha256 when it is read: in
the leader's scratch folder where all processes share it, in the artifact store between machines. Its name follows from
everything that it was made of (configuration, code, inputs, number of shards, and all that was agreed on before), so an
attempt that was killed finds what it had finished, and nothing older is ever taken for it.

Tensors are large and soon measured again. On the leader's machine they pass through a plain file of this attempt alone:
writing them through to the disk and reading them twice for their sha256 would take longer than measuring them.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from jobs.evaluate.machine_failures import MachineFailures
from jobs.evaluate.records import write_tensors
from jobs.evaluate.sharing import Shard
from pipeline_common import provenance
from pipeline_common.artifacts import ArtifactStore, DirectoryStore
from pipeline_common.context import Context
from pipeline_common.errors import InputError, PipelineError, TransientError
from pipeline_common.logs import get_logger
from pipeline_common.manifest import Manifest, list_files
from pipeline_common.measures import Degradation
from pipeline_common.stages import fingerprint_of

AREA: Final = "evaluation_parts"
_RECORDS: Final = "records.json"
_TENSOR: Final = "tensor.safetensors"
_LOCAL_POLL_S: Final = 0.1
_REMOTE_POLL_S: Final = 1.0
_TOLD_AFTER_S: Final = 3.0
_TOLD_EVERY_S: Final = 30.0
_log = get_logger(__name__)
_Found = TypeVar("_Found")


class LeaderFinishedError(Exception):
    """The stage's artifact is there: nobody waits for this process any more."""


@dataclass(frozen=True)
class Part:
    """What one process made in one phase."""

    records: Sequence[Any] = ()
    """JSON."""
    tensor: NDArray[np.float32] | None = None
    degradations: tuple[Degradation, ...] = ()


class Exchange:
    """One process's view; every process agrees on the same things in the same order."""

    def __init__(self, context: Context, shard: Shard, folder: Path) -> None:
        """Look at the stores.

        Args:
            context: of the stage; its work folder is this process's own.
            shard: which process this is.
            folder: shared by the processes of the leader's machine.
        """
        self.shard = shard
        self.waited_s = 0.0
        self.degradations: list[Degradation] = []
        self._context = context
        self._local = DirectoryStore(folder)
        self._tensors = folder / "tensors"
        self._many_machines = context.member.nodes > 1
        self._finished = context.store.read_manifest(context.planned.key) if context.member.index else None
        self._base = {
            "evaluate": context.planned.fingerprint,
            "inputs": {name: manifest.digest() for name, manifest in context.inputs.items()},
            "shards": shard.count,
            "machines": context.member.nodes,
        }
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
        found = self._find(self._messages, name, 0)
        if found is None or not accept(found.records):
            made = json.loads(json.dumps(make()))
            found = self._publish(self._messages, name, 0, Part(made))
        self._agree(name, found.records)
        return found.records

    def hear(self, name: str, accept: Callable[[Any], bool] = lambda _: True, otherwise: str = "") -> Any:
        """Follower: wait until the leader has settled something.

        Args:
            name: of what is agreed on.
            accept: whether this process can follow; until then the leader may still change its mind.
            otherwise: said when it never could.
        """

        def look() -> Part | None:
            found = self._find(self._messages, name, 0)
            return found if found is not None and accept(found.records) else None

        found = self._await(look, lambda: f"the leader's {name}{otherwise}")
        self._agree(name, found.records)
        return found.records

    def contribute(self, name: str, make: Callable[[], Part], *, tensors: bool = False) -> Part:
        """This process's part: an earlier attempt's, or made and kept now.

        Args:
            name: of the phase.
            make: makes the part.
            tensors: whether parts of this phase may have a tensor; the leader's own are not kept.
        """
        if tensors and self.shard.leads:
            return make()
        index = self.shard.index
        store = self._store_of(index)
        found = self._find(store, name, index, tensors=tensors)
        if found is not None:
            _log.info("%s: this shard's part was finished by an earlier attempt", name)
            return found
        return self._publish(store, name, index, make(), tensors=tensors)

    def gather(self, name: str, own: Part, *, tensors: bool = False) -> list[Part]:
        """Leader: everybody's part, in the order of the shards; `tensors` as for `contribute`."""
        assert self.shard.leads
        found: dict[int, Part] = {0: own}
        while missing := [index for index in range(self.shard.count) if index not in found]:

            def look(missing: Sequence[int] = missing) -> tuple[int, Part] | None:
                for index in missing:
                    part = self._find(self._store_of(index), name, index, tensors=tensors)
                    if part is not None:
                        return index, part
                self.failures.heed()
                return None

            def whom(missing: Sequence[int] = missing) -> str:
                return f"{name} of {self._describe(missing)}"

            index, part = self._await(look, whom)
            found[index] = part
        parts = [found[index] for index in range(self.shard.count)]
        self.degradations += [one for part in parts for one in part.degradations if one not in self.degradations]
        return parts

    def clean(self) -> None:
        """Leader: remove from the artifact store what passed through it, once the stage's artifact is there."""
        if not self._many_machines:
            return
        store, prefix = self._context.store, f"{AREA}/{self._context.planned.fingerprint}-"
        try:
            for key in store.list_keys(AREA):
                if key.startswith(prefix):
                    store.withdraw(key)
            self.failures.forget()
        except PipelineError as error:
            # The results are safe; a retry of the whole stage would not remove these either.
            _log.warning("%s/%s... are left in %s: %s", AREA, self._context.planned.fingerprint, store.uri, error)

    def _agree(self, name: str, content: Any) -> None:
        self._agreed = fingerprint_of({"before": self._agreed, "name": name, "content": content})

    @property
    def _messages(self) -> ArtifactStore:
        return self._context.store if self._many_machines else self._local

    def _store_of(self, index: int) -> ArtifactStore:
        return self._local if self._machine_of(index) == 0 else self._context.store

    def _machine_of(self, index: int) -> int:
        return index * self._context.member.nodes // self.shard.count

    def _identity(self, store: ArtifactStore, name: str, index: int, *, tensors: bool) -> dict[str, Any]:
        attempt = self._context.attempt if tensors and store is self._local else None
        return {**self._base, "name": name, "shard": index, "agreed": self._agreed, "attempt": attempt}

    def _key(self, identity: Mapping[str, Any]) -> str:
        return f"{self._context.planned.fingerprint}-{fingerprint_of(identity)}"

    def _tensor_file(self, store: ArtifactStore, folder: Path, fingerprint: str) -> Path:
        return self._tensors / f"{fingerprint}.safetensors" if store is self._local else folder / _TENSOR

    def _find(self, store: ArtifactStore, name: str, index: int, *, tensors: bool = False) -> Part | None:
        fingerprint = self._key(self._identity(store, name, index, tensors=tensors))
        key = f"{AREA}/{fingerprint}"
        try:
            manifest = store.read_manifest(key)
            folder = None if manifest is None else store.open(manifest)
        except InputError as error:
            # Damaged, or being written again at this moment.
            _log.debug("%s of shard %d: %s", name, index, error)
            return None
        if manifest is None or folder is None:
            return None
        records = json.loads((folder / _RECORDS).read_text(encoding="utf-8"))
        tensor = None
        file = self._tensor_file(store, folder, fingerprint)
        if tensors and file.is_file():
            from safetensors.numpy import load_file

            tensor = np.asarray(load_file(file)["tensor"], dtype=np.float32)
        return Part(records, tensor, manifest.degradations)

    def _publish(self, store: ArtifactStore, name: str, index: int, part: Part, *, tensors: bool = False) -> Part:
        identity = self._identity(store, name, index, tensors=tensors)
        folder = self._context.work_dir / "part"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / _RECORDS).write_text(json.dumps(part.records), encoding="utf-8")
        if part.tensor is not None:
            file = self._tensor_file(store, folder, self._key(identity))
            file.parent.mkdir(parents=True, exist_ok=True)
            beside = file.with_suffix(".new")
            write_tensors(beside, {"tensor": part.tensor}, {})
            beside.replace(file)
        manifest = Manifest(
            stage=AREA,
            fingerprint=self._key(identity),
            payload=identity,
            run_id=self._context.run_id,
            files=list_files(folder),
            degradations=part.degradations,
            provenance=provenance.collect(provenance.now(), self._context.attempt),
        )
        store.publish(folder, manifest)
        shutil.rmtree(folder)
        _log.debug("%s of shard %d: kept as %s", name, index, manifest.key)
        return part

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
            if waited >= told:
                _log.info("waiting for %s since %.0f s", whom(), waited)
                told = waited + _TOLD_EVERY_S
            time.sleep(_REMOTE_POLL_S if self._many_machines else _LOCAL_POLL_S)
        self.waited_s += time.monotonic() - began
        return found

    def _require_unfinished(self) -> None:
        if self._context.member.index == 0:
            return
        now = self._context.store.read_manifest(self._context.planned.key)
        if now is not None and now != self._finished:
            raise LeaderFinishedError

    def _describe(self, indices: Iterable[int]) -> str:
        if not self._many_machines:
            return "shard " + ", ".join(str(index) for index in indices)
        return ", ".join(f"shard {index} (machine {self._machine_of(index)})" for index in indices)
