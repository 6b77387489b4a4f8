"""How much memory this process has used at most, for manifests."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path
from typing import Final

_PER_MIB: Final = 1 << 20 if sys.platform == "darwin" else 1 << 10
"""`ru_maxrss` counts KiB on Linux and bytes on macOS."""
_STATUS: Final = Path("/proc/self/status")


def peak_memory() -> dict[str, float | None]:
    """Peaks in MiB: `peak_mib` of this process, `peak_gpu_mib` of its largest share of one GPU (None without one).

    Torch is asked only where it has been imported already.
    """
    torch = sys.modules.get("torch")
    gpu = None
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        gpu = max(torch.cuda.max_memory_allocated(index) for index in range(torch.cuda.device_count())) / (1 << 20)
    return {
        "peak_mib": round(_peak_mib(), 1),
        "peak_gpu_mib": None if gpu is None else round(gpu, 1),
    }


def _peak_mib() -> float:
    """The kernel's high-water mark of this program (Linux), or `ru_maxrss`.

    `ru_maxrss` lives through fork and exec: it begins with what the process had that started this one.
    """
    mark = re.search(r"^VmHWM:\s*(\d+) kB$", _STATUS.read_text(), re.MULTILINE) if _STATUS.is_file() else None
    if mark is not None:
        return int(mark[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _PER_MIB
