"""Whether this machine can quantise to 4 bits and multiply, found out by doing it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Final

# NF4 with double quantisation is off by some 9 % on random weights; a wrong kernel is off by 100 % or more.
MAX_FROM_FLOAT: Final = 0.2
MAX_FROM_OWN_WEIGHTS: Final = 0.02
KERNEL_ERRORS: Final = (RuntimeError, NotImplementedError, OSError, AttributeError, ValueError)
_SIZE: Final = 128


def import_failure() -> str | None:
    """Why bitsandbytes cannot be imported; None when it can.

    PEFT takes an installed bitsandbytes for a working one and fails to import with a broken one. So after a failure the
    package is hidden from this process, which PEFT reads as "not installed". Call this before PEFT is imported.
    """
    try:
        import bitsandbytes  # noqa: F401
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        for name in [name for name in sys.modules if name.partition(".")[0] == "bitsandbytes"]:
            del sys.modules[name]
        sys.modules["bitsandbytes"] = None  # type: ignore[assignment]
        return f"bitsandbytes cannot be imported ({_shorten(error)})"
    return None


@dataclass(frozen=True)
class FourBitTrial:
    """Relative Frobenius errors of one NF4 product."""

    from_float: float
    """Against the float product: what quantising costs, some 9 % for normal weights."""
    from_own_weights: float
    """Against the product with the dequantised weights: only the order of summation differs."""

    @property
    def failure(self) -> str | None:
        """What is wrong with these numbers, None when nothing is."""
        if not self.from_float <= MAX_FROM_FLOAT:
            return f"products are off by {self.from_float:.0%}; at most {MAX_FROM_FLOAT:.0%} was expected"
        if not self.from_own_weights <= MAX_FROM_OWN_WEIGHTS:
            return f"products are off by {self.from_own_weights:.1%} from those of the kernel's own weights"
        return None


def multiply_in_four_bits(device: str) -> FourBitTrial:
    """Quantise a matrix to NF4 with double quantisation and multiply with it: [4, 128] x [128, 128].

    Args:
        device: `cpu` or `cuda`.

    Raises:
        Exception: whatever bitsandbytes raises where it has no kernel.
    """
    import torch
    from bitsandbytes import matmul_4bit
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(_SIZE, _SIZE, generator=generator).to(device)
    inputs = torch.randn(4, _SIZE, generator=generator).to(device)
    packed, state = quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    product = matmul_4bit(inputs, packed.t(), quant_state=state)
    exact, own = inputs @ weight.t(), inputs @ dequantize_4bit(packed, state).t()
    return FourBitTrial(
        float((product - exact).norm() / exact.norm()),
        float((product - own).norm() / own.norm()),
    )


def kernel_failure(device: str) -> str | None:
    """Why NF4 with double quantisation does not work on `device`; None when it does."""
    try:
        failure = multiply_in_four_bits(device).failure
    except KERNEL_ERRORS as error:
        return f"the 4-bit product fails on {device} ({_shorten(error)})"
    return None if failure is None else f"on {device}, 4-bit {failure}"


def _shorten(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"
