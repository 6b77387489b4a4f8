"""Copies of the checkpoints in the artifact store, for a machine whose disk goes away with it (a pod).

A copy is an artifact of its own, `checkpoints/train/<fingerprint>/checkpoint-<step>`: sent, fetched and verified by the
same code, complete when its manifest is there. They are removed once the stage's own artifact is published.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.train.checkpoints import KEEP, newest_complete
from pipeline_common.errors import InputError, TransientError
from pipeline_common.logs import get_logger
from pipeline_common.manifest import MANIFEST_NAME, Manifest, list_files

if TYPE_CHECKING:
    from pipeline_common.artifacts import ArtifactStore
    from pipeline_common.context import Context

_log = get_logger(__name__)


class CheckpointCopies:
    """The copies of one training's checkpoints."""

    def __init__(self, store: ArtifactStore, area: str, run_id: str) -> None:
        self._store = store
        self._area = area
        self._run_id = run_id

    def save(self, folder: Path, made_by: Mapping[str, Any]) -> None:
        """Send a complete checkpoint, then drop all but the newest copies.

        A server that stays away does not end the training: the checkpoint on this machine's disk stands, and the next
        one is sent again.

        Raises:
            ConfigError: the store may not be written.
        """
        manifest = Manifest(
            stage=self._area,
            fingerprint=folder.name,
            payload={"made_by": dict(made_by)},
            run_id=self._run_id,
            files=list_files(folder),
        )
        try:
            self._store.publish(folder, manifest)
            for key in self._keys()[:-KEEP]:
                self._store.withdraw(key)
        except TransientError as error:
            _log.warning("%s is on this machine's disk only: %s", folder.name, error)
        else:
            _log.debug("%s is in %s", folder.name, self._store.uri)

    def restore(self, root: Path, made_by: Mapping[str, Any]) -> None:
        """Fetch the newest usable copy into `root`, when it is ahead of what lies there.

        Raises:
            TransientError: the store's server is away.
        """
        local = newest_complete(root, made_by)
        for key in reversed(self._keys()):
            if local is not None and _step(key) <= local.step:
                return
            try:
                manifest = self._store.read_manifest(key)
                if manifest is None or manifest.payload["made_by"] != made_by:
                    continue
                folder = self._store.open(manifest)
            except InputError as error:
                _log.warning("%s; an older checkpoint is looked for", error)
                self._store.withdraw(key)
                continue
            target = root / manifest.fingerprint
            shutil.rmtree(target, ignore_errors=True)
            partial = root / f".{manifest.fingerprint}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(folder, partial, ignore=shutil.ignore_patterns(MANIFEST_NAME))
            partial.replace(target)
            _log.info("fetched %s from %s", manifest.fingerprint, self._store.uri)
            return

    def _keys(self) -> list[str]:
        return sorted(self._store.list_keys(self._area), key=_step)


def find_copies(context: Context) -> CheckpointCopies | None:
    """The copies of this stage's checkpoints; None where the store is no safer than the disk they lie on."""
    if not context.store.remote:
        return None
    return CheckpointCopies(context.store, f"checkpoints/{context.planned.key}", context.run_id)


def _step(key: str) -> int:
    return int(key.rpartition("-")[2])
