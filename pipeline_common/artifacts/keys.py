"""Names in a store: made by us, from an alphabet that every file system and bucket keeps as it is."""

from __future__ import annotations

import re
from typing import Final

from pipeline_common.errors import InputError
from pipeline_common.manifest import Manifest, parse_manifest

_SAFE_KEY: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=-]*(/[A-Za-z0-9_][A-Za-z0-9._=-]*)*")


def check_key(key: str) -> str:
    """The key itself.

    Raises:
        InputError: it could leave the store, or is not made of the safe alphabet.
    """
    if not _SAFE_KEY.fullmatch(key):
        raise InputError(f"artifact key {key!r}: expected parts of letters, digits and ._=- joined by /")
    return key


def parse_stored_manifest(content: bytes, key: str) -> Manifest:
    """The manifest found under `key`.

    Raises:
        InputError: it is damaged, or another artifact's.
    """
    manifest = parse_manifest(content, key)
    if manifest.key != key:
        raise InputError(f"{key}: its manifest says it is {manifest.key}; the folder was moved or renamed by hand")
    return manifest
