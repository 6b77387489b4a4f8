"""A GPU on which only so much memory is free: another process holds the rest, as if the card were smaller.

Everything that asks the driver for free memory then finds what a smaller card would offer; a stage that needs more
runs out of memory for real. The card's speed and its total memory stay what they are.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_ALLOWED_MIB = 64
"""How far what is free may be from what was asked for."""

_HOLD = """
import sys, torch
wanted = int(float(sys.argv[1]) * 2**30)
torch.zeros(1, device="cuda")
free = torch.cuda.mem_get_info()[0]
if free < wanted:
    sys.exit(f"{free / 2**30:.1f} GiB are free on this GPU, {wanted / 2**30:.1f} were to be left")
held = torch.empty(free - wanted, dtype=torch.uint8, device="cuda")
print(torch.cuda.mem_get_info()[0], flush=True)
sys.stdin.read()
"""


@contextmanager
def leave_free(gib: float) -> Iterator[None]:
    """While this is open, other processes find `gib` GiB free on the first GPU.

    Raises:
        RuntimeError: the GPU does not have that much free, or another process changed what is free meanwhile.
    """
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(gib)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        told = holder.stdout.readline()
        if not told or abs(int(told) / 2**20 - gib * 1024) > _ALLOWED_MIB:
            raise RuntimeError(
                f"no GPU with {gib:g} GiB free could be had; free now: {told.strip() or 'unknown'} bytes"
            )
        yield
