"""What Liger replaces in transformers' modules for the whole process, put back: a process of a stage trains once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_REPLACED: Final = ("apply_rotary_pos_emb", "LlamaRMSNorm", "LlamaMLP")


@contextmanager
def transformers_own_layers() -> Iterator[None]:
    """Afterwards Llamas are built from the layers that they were built from before."""
    from transformers.models.llama import modeling_llama

    before = {name: getattr(modeling_llama, name) for name in _REPLACED}
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(modeling_llama, name, value)
