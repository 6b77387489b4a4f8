"""Parts of an evaluation's results, kept where the processes that need them find them.

Each is a small artifact of its own under `evaluation_parts/`, its files compared with their sha256 when it is read: in
the leader's scratch folder where all processes share it, in the artifact store between machines. Its name follows from
everything that it was made of (configuration, code, inputs, number of shards, and all that was agreed on before), so an
attempt that was killed finds what it had finished, and nothing older is ever taken for it.

Tensors are large and soon measured again. On the leader's machine every process writes its rows into one table of this
attempt, memory that all of them have mapped: handing parts over, and merging them, would take longer than measuring.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from jobs.evaluate.records import write_tensors
from jobs.evaluate.shared_tables import map_table
from pipeline_common.artifacts import ArtifactStore, DirectoryStore
from pipeline_common.context import Context
from pipeline_common.errors import InputError
from pipeline_common.logs import get_logger
from pipeline_common.manifest import Manifest, list_files
from pipeline_common.measures import Degradation
from pipeline_common.stages import fingerprint_of

AREA: Final = "evaluation_parts"
_RECORDS: Final = "records.json"
_TENSORS: Final = "tensors.safetensors"
_log = get_logger(__name__)


@dataclass(frozen=True)
class Part:
    """What one process made in one phase."""

    records: Sequence[Any] = ()
    """JSON."""
    tensors: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    """What another machine sends, by name; on the leader's it is in the tables."""
    degradations: tuple[Degradation, ...] = ()


@dataclass(frozen=True)
class Label:
    """Which part of what."""

    name: str
    """Of the phase, or of what was agreed on."""
    shard: int
    """Who made it."""
    agreed: str
    """Fingerprint of all that was agreed on before."""
    kind: Literal["message", "records", "tensors"]
    """A message is for everybody; what has a tensor is, on the leader's machine, of one attempt, as the table is."""


class PartStores:
    """The folder of the leader's machine, and the artifact store between machines."""

    def __init__(self, context: Context, shards: int, folder: Path, tables: Mapping[str, int]) -> None:
        """Look at the stores.

        Args:
            context: of the stage; its work folder is this process's own.
            shards: how many processes there are.
            folder: shared by the processes of the leader's machine.
            tables: as for `Exchange`.
        """
        self._context = context
        self._shards = shards
        self._local = DirectoryStore(folder)
        self._tables = tables
        self.many_machines = context.member.nodes > 1
        self._made_of = {
            "evaluate": context.planned.fingerprint,
            "inputs": {name: manifest.digest() for name, manifest in context.inputs.items()},
            "shards": shards,
            "machines": context.member.nodes,
        }

    def find(self, label: Label) -> Part | None:
        """A part as it was kept; None while it is absent, damaged, or being written."""
        store = self._store(label)
        fingerprint = self._fingerprint(label)
        try:
            manifest = store.read_manifest(f"{AREA}/{fingerprint}")
            folder = None if manifest is None else store.open(manifest)
        except InputError as error:
            # Damaged, or being written again at this moment.
            _log.debug("%s of shard %d: %s", label.name, label.shard, error)
            return None
        if manifest is None or folder is None:
            return None
        records = json.loads((folder / _RECORDS).read_text(encoding="utf-8"))
        tensors = {}
        file = folder / _TENSORS
        if file.is_file():
            from safetensors.numpy import load_file

            tensors = load_file(file)
        return Part(records, tensors, manifest.degradations)

    def keep(self, label: Label, part: Part) -> None:
        """Publish a part under its label."""
        store = self._store(label)
        fingerprint = self._fingerprint(label)
        folder = self._context.work_dir / "part"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / _RECORDS).write_text(json.dumps(part.records), encoding="utf-8")
        if part.tensors:
            write_tensors(folder / _TENSORS, part.tensors, {})
        manifest = Manifest(
            stage=AREA,
            fingerprint=fingerprint,
            payload=self._identity(label),
            run_id=self._context.run_id,
            files=list_files(folder),
            degradations=part.degradations,
            # Nothing of commit and machine, which the stage's own manifest has: asking git and the driver takes longer
            # than all the rest, while others wait.
            provenance={"attempt": self._context.attempt},
        )
        store.publish(folder, manifest)
        shutil.rmtree(folder)
        _log.debug("%s of shard %d: kept as %s", label.name, label.shard, manifest.key)

    def open_table(self, name: str, shard: int, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
        """A table, the same memory in all processes of the leader's machine.

        Args:
            name: of the table.
            shard: who asks.
            shape: of the whole.

        Returns:
            Not initialised; None on another machine, whose parts carry their tensors.
        """
        if self._machine_of(shard):
            return None
        if self._shards == self._context.member.nodes:
            return np.empty(shape, dtype=np.float32)
        return map_table(self._tables[name], shape)

    def withdraw_all(self) -> None:
        """Remove from the artifact store what passed through it for this stage."""
        for key in self._context.store.list_keys(AREA):
            if key.startswith(f"{AREA}/{self._context.planned.fingerprint}-"):
                self._context.store.withdraw(key)

    def describe(self, shards: Iterable[int]) -> str:
        """Who they are, for messages."""
        if not self.many_machines:
            return "shard " + ", ".join(str(shard) for shard in shards)
        return ", ".join(f"shard {shard} (machine {self._machine_of(shard)})" for shard in shards)

    def _machine_of(self, shard: int) -> int:
        return shard * self._context.member.nodes // self._shards

    def _store(self, label: Label) -> ArtifactStore:
        stays = not self.many_machines if label.kind == "message" else self._machine_of(label.shard) == 0
        return self._local if stays else self._context.store

    def _identity(self, label: Label) -> dict[str, Any]:
        of_table = label.kind == "tensors" and self._store(label) is self._local
        return {
            **self._made_of,
            "name": label.name,
            "shard": label.shard,
            "agreed": label.agreed,
            "attempt": self._context.attempt if of_table else None,
        }

    def _fingerprint(self, label: Label) -> str:
        return f"{self._context.planned.fingerprint}-{fingerprint_of(self._identity(label))}"
