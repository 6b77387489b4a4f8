"""The GPUs that the NVIDIA driver lists, asked of `nvidia-smi`: for provenance, without torch.

A machine without `nvidia-smi` has none. Where it fails, hangs or says what nobody can read, the reason is kept: what is
not known is never shown as none, and no stage ends for it.
"""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Final

from pipeline_common.logs import get_logger

TIMEOUT_S: Final = 30.0
"""Without persistence mode the tool loads the driver first, which takes seconds on a machine with eight GPUs."""
_KILL_S: Final = 2.0
_FIELDS: Final = ("name", "memory", "driver")
_QUERY: Final = ("--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
_SHOWN: Final = 200
_log = get_logger(__name__)


@dataclass(frozen=True)
class Listing:
    """What `nvidia-smi` said."""

    gpus: tuple[dict[str, str], ...] = ()
    """Name, memory and driver of each GPU that could be read, in the driver's order and words."""
    error: str | None = None
    """Why they are not known, or not all of them; None where nothing failed, also without `nvidia-smi`."""


@cache
def list_gpus() -> Listing:
    """The driver's GPUs, asked once for a process; a failure is logged as a warning."""
    found = ask_driver()
    if found.error is not None:
        _log.warning("the GPUs of this machine: %s", found.error)
    return found


def ask_driver(timeout_s: float = TIMEOUT_S) -> Listing:
    """Ask `nvidia-smi`.

    Args:
        timeout_s: to wait for its answer, in seconds.
    """
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Listing()
    try:
        process = subprocess.Popen(
            [tool, *_QUERY],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as error:
        return Listing(error=f"nvidia-smi did not start: {error.strerror}")
    try:
        said, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return Listing(error=f"nvidia-smi gave no answer within {timeout_s:g} s")
    finally:
        _end(process)
    return _read(said, process.returncode)


def _end(process: subprocess.Popen[str]) -> None:
    """Kill it where it still runs. The kernel may keep one that waits for a broken driver; nobody waits with it."""
    if process.poll() is None:
        process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_KILL_S)
    if process.stdout is not None:
        process.stdout.close()


def _read(said: str, code: int) -> Listing:
    """The lines that name a GPU; every other line, and an exit code but 0, is an error."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    split = [[cell.strip() for cell in line.split(",")] for line in lines]
    gpus = tuple(dict(zip(_FIELDS, cells, strict=True)) for cells in split if _is_gpu(cells))
    others = [line for line, cells in zip(lines, split, strict=True) if not _is_gpu(cells)]
    if code == 0 and gpus and not others:
        return Listing(gpus)
    what = "failed" if code else "answered unreadably"
    words = " ".join(others)[:_SHOWN].rstrip(".") or "it said nothing"
    return Listing(gpus, f"nvidia-smi {what} (exit code {code}): {words}")


def _is_gpu(cells: list[str]) -> bool:
    """Whether they are a name, a memory (`81920 MiB`; `[N/A]` where it is the processor's) and a driver's version."""
    if len(cells) != len(_FIELDS) or not all(cells):
        return False
    _, memory, driver = cells
    return (memory.endswith(" MiB") or memory.startswith("[")) and (driver[0].isdigit() or driver.startswith("["))
