"""Small artifacts."""

from __future__ import annotations

import random
from pathlib import Path

from pipeline_common.manifest import Manifest, list_files


def make_artifact(folder: Path, files: dict[str, bytes], fingerprint: str = "f00d", stage: str = "train") -> Manifest:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return Manifest(stage=stage, fingerprint=fingerprint, payload={"x": 1}, run_id="r", files=list_files(folder))


def random_bytes(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def read_tree(folder: Path) -> dict[str, bytes]:
    """Every file but the manifest; path -> content."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
