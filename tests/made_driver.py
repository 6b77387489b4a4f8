"""A script of our own in the place of `nvidia-smi`."""

from __future__ import annotations

import stat

import pytest

from pipeline_common import driver


def says(*lines: str, code: int = 0) -> str:
    """A script that prints these lines and ends with this code."""
    return "\n".join(["#!/bin/sh", *(f"echo '{line}'" for line in lines), f"exit {code}", ""])


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Puts a shell script on PATH by that name, which has nothing else but the shell; without a call there is none."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("sh", "sleep"):
        (folder / tool).symlink_to(f"/bin/{tool}")
    monkeypatch.setenv("PATH", str(folder))
    driver.list_gpus.cache_clear()

    def write(script: str) -> None:
        file = folder / "nvidia-smi"
        file.write_text(script)
        file.chmod(file.stat().st_mode | stat.S_IXUSR)

    yield write
    driver.list_gpus.cache_clear()
