"""PyTorch's GPU allocator, set for passes that differ in length."""

from __future__ import annotations

import os
from typing import Final

_SETTINGS: Final = "PYTORCH_CUDA_ALLOC_CONF"


def let_segments_grow() -> None:
    """Let blocks of memory grow in place; call it before a GPU is used.

    Every pass has another number of tokens. Without this a block that is a little too small for the next pass is
    kept beside a new one until memory runs out, and then all are given back and asked for again. What the environment
    says of the allocator wins.
    """
    if not {_SETTINGS, "PYTORCH_ALLOC_CONF"} & os.environ.keys():
        os.environ[_SETTINGS] = "expandable_segments:True"
