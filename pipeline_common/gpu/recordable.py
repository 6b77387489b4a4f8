"""Which models' passes can be recorded as CUDA graphs: the CPU must not have to wait for a result on the way."""

from __future__ import annotations

from typing import Any, Final

_RECORDABLE_ROTATIONS: Final = frozenset({"default", "linear", "llama3"})
"""Others look at the positions' values, for which the CPU would have to wait."""
_RECORDABLE_MODELS: Final = frozenset({"llama", "mistral", "qwen2", "qwen3"})


def can_be_recorded(config: Any) -> bool:
    """Whether the forward pass of a model with this configuration is known to need nothing from the CPU."""
    rotation = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    layer_kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    return (
        config.model_type in _RECORDABLE_MODELS
        and rotation in _RECORDABLE_ROTATIONS
        and layer_kinds == {"full_attention"}
        and getattr(config, "sliding_window", None) is None
    )
