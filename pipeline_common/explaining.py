"""Answers for a person: why a stage is not cached, and what a failure of the machine means."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from pipeline_common.config import flatten
from pipeline_common.errors import ConfigError, InputError, TransientError
from pipeline_common.logs import get_logger

if TYPE_CHECKING:
    from pipeline_common.artifacts import ArtifactStore
    from pipeline_common.stages import PlannedStage

_log = get_logger(__name__)


def why_not_cached(store: ArtifactStore, planned: PlannedStage) -> str:
    """The fields in which this stage differs from the most similar artifact there is."""
    wanted = flatten(planned.payload)
    best: dict[str, tuple[Any, Any]] | None = None
    nearest = ""
    for key in store.list_keys(planned.stage.name):
        try:
            manifest = store.read_manifest(key)
        except InputError as error:
            # Another run's artifact, of use for comparing only: its damage is no reason to stop this one.
            _log.debug("not compared with: %s", error)
            continue
        if manifest is None:
            continue
        found = flatten(manifest.payload)
        fields = wanted.keys() | found.keys()
        differing = {
            field: (found.get(field), wanted.get(field)) for field in fields if found.get(field) != wanted.get(field)
        }
        if best is None or len(differing) <= len(best):
            best, nearest = differing, key
    if best is None:
        return f"no {planned.stage.name} artifact exists yet"
    if not best:
        return f"{nearest} has the same fields"
    changes = {_field_name(field): values for field, values in sorted(best.items())}
    told = "; ".join(f"{field}: {old!r} -> {new!r}" for field, (old, new) in sorted(changes.items()))
    return f"differs from {nearest} in {told}"


def _field_name(path: str) -> str:
    """The setting behind a path of a payload: an input's setting is the same setting, however deep it sits."""
    _, marker, setting = path.rpartition("config.")
    if marker:
        return setting
    _, marker, source = path.rpartition("sources.")
    if marker:
        return f"content of {source.rpartition('.')[0]}"
    *inputs, last = path.split(".inputs.")[-1].removeprefix("inputs.").split(".")
    return f"{last} of {inputs[0]}" if inputs else last


def explain(error: BaseException) -> BaseException:
    """A person's words for failures of the machine that libraries report in their own ways; others unchanged."""
    chain: BaseException | None = error
    while chain is not None:
        code = getattr(chain, "errno", None)
        text = str(chain)
        if code in {errno.ENOSPC, errno.EDQUOT} or "No space left on device" in text or "disk is full" in text:
            return TransientError(
                f"the disk is full ({text}); free some room, or move runtime.output_dir, and run again"
            )
        if code == errno.EFBIG or "File too large" in text:
            return TransientError(
                f"a file grew beyond what this disk or this process may write ({text}); raise `ulimit -f`, or move "
                "runtime.output_dir to another file system, and run again"
            )
        if code in {errno.EROFS, errno.EACCES} and isinstance(chain, OSError):
            return ConfigError(f"no permission to write: {text}; give a runtime.output_dir this user may write")
        chain = chain.__cause__ or chain.__context__
    return error
