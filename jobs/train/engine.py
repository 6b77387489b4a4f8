"""Which way rows go through the model, and what of it this machine can do."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from jobs.train import dropped_products
from pipeline_common.gpu.attention import kernel_failure, register_varlen

if TYPE_CHECKING:
    from pipeline_common.config import TrainConfig
    from pipeline_common.gpu.models import Placement


@dataclass(frozen=True)
class Engine:
    """A decided engine."""

    name: Literal["plain", "flat"]
    liger: bool = False
    """Liger's kernels for norms, SwiGLU, rotary positions, and the head's loss."""
    varlen: bool = False
    """The variable-length attention kernel; otherwise attention row by row."""

    def describe(self) -> str:
        """One line for the log."""
        if self.name == "plain":
            return "plain: padded batches"
        parts = ("varlen attention" if self.varlen else "attention row by row", "Liger" if self.liger else "no Liger")
        return f"flat: rows end to end, {', '.join(parts)}"


PLAIN: Final = Engine("plain")


def choose_engine(train: TrainConfig, placement: Placement, degrade: Callable[[str, str], None]) -> Engine:
    """The engine of this run; on a GPU, what it lacks of the fast parts is told to `degrade`.

    Left to itself, it is the flat one where its attention kernel can be used, and the plain one elsewhere.

    Args:
        train: the train section.
        placement: device and arithmetic.
        degrade: takes name and detail of each part that is missing.
    """
    cuda = placement.device == "cuda"
    if train.engine == "plain" or (train.engine == "auto" and (not cuda or train.sharding == "full")):
        return Engine("plain")
    if not cuda:
        return Engine("flat")
    missing = kernel_failure()
    if missing is None and str(placement.compute_dtype) == "torch.float32":
        missing = "the kernel has no float32 (model.compute_dtype)"
    if missing is not None and train.engine == "auto":
        return Engine("plain")
    if missing is not None:
        degrade("no varlen attention", f"{missing}; attention is computed row by row, which is slower")
    liger = importlib.util.find_spec("liger_kernel") is not None
    if not liger:
        degrade("no Liger kernels", "liger-kernel is not installed; transformers' own layers are slower, same results")
    if train.lora_dropout and (broken := dropped_products.kernel_failure()) is not None:
        degrade("no dropout kernels", f"{broken}; dropout's masks are matrices, which is slower, same distribution")
    return Engine("flat", liger=liger, varlen=missing is None)


def prepare_base(base: Any, engine: Engine) -> None:
    """Give a loaded base model the engine's attention and layers; call it before adapters are put on."""
    if engine.name == "plain":
        return
    base.set_attn_implementation(register_varlen())
    if engine.liger:
        from liger_kernel.transformers import _apply_liger_kernel_to_instance

        # The head's loss is ours, since it needs the target positions only.
        _apply_liger_kernel_to_instance(base, cross_entropy=False, fused_linear_cross_entropy=False)
