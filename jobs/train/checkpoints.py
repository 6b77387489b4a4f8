"""Checkpoints that can be trusted after a kill at any moment.

The trainer writes a checkpoint in place, file by file. One counts only when our marker is in it: it is written last,
after the files reached the disk, and lists them with their sizes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipeline_common.artifacts import replace_file
from pipeline_common.logs import get_logger

MARKER: Final = "complete.json"
# One more than the newest, in case the disk damaged that one.
KEEP: Final = 2
_NAME: Final = re.compile(r"checkpoint-(\d+)")
_log = get_logger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint: the state after `step` optimizer steps."""

    folder: Path
    step: int


def mark_complete(folder: Path, made_by: Mapping[str, Any]) -> None:
    """Put the files of a checkpoint on the disk, then the marker.

    Args:
        folder: a checkpoint that the trainer has finished writing.
        made_by: device and arithmetic; only a process with the same may go on from here.
    """
    sizes = {}
    for path in _files(folder):
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        sizes[path.relative_to(folder).as_posix()] = path.stat().st_size
    marker = {"made_by": dict(made_by), "files": sizes}
    replace_file(folder / MARKER, json.dumps(marker, indent=2, sort_keys=True).encode())


def newest_complete(root: Path, made_by: Mapping[str, Any]) -> Checkpoint | None:
    """The newest complete checkpoint below `root`; all that no process could go on from are deleted.

    Args:
        root: the folder of checkpoints; may be missing.
        made_by: this process's device and arithmetic.
    """
    usable = []
    for step, folder in _list(root):
        flaw = _find_flaw(folder, made_by)
        if flaw is None:
            usable.append(Checkpoint(folder, step))
        else:
            _log.info("%s is not used: %s", folder.name, flaw)
            _delete(folder)
    return usable[-1] if usable else None


def prune(root: Path, keep: int = KEEP) -> None:
    """Delete all but the newest `keep` checkpoints."""
    for _, folder in _list(root)[:-keep]:
        _delete(folder)


def _list(root: Path) -> list[tuple[int, Path]]:
    """Checkpoints by step, oldest first."""
    if not root.is_dir():
        return []
    matches = ((_NAME.fullmatch(path.name), path) for path in root.iterdir() if path.is_dir())
    return sorted((int(match.group(1)), path) for match, path in matches if match)


def _find_flaw(folder: Path, made_by: Mapping[str, Any]) -> str | None:
    try:
        marker = json.loads((folder / MARKER).read_bytes())
    except FileNotFoundError:
        return "it was not finished"
    except ValueError:
        return f"its {MARKER} is damaged"
    if marker["made_by"] != made_by:
        return f"it was made with {marker['made_by']}, this attempt has {dict(made_by)}"
    for name, size in marker["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            return f"{name} is missing or cut"
    return None


def _delete(folder: Path) -> None:
    # The marker first: a deletion that is itself interrupted must not leave a checkpoint that looks complete.
    (folder / MARKER).unlink(missing_ok=True)
    shutil.rmtree(folder)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MARKER)
