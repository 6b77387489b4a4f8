"""Where a causal language model's layers are, whose states are measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from pipeline_common.errors import InputError
from pipeline_common.gpu.foreign_code import describe_loading_error


def find_trunk(model: Any) -> tuple[Any, Any, Any]:
    """The model without its head, its layers and its final norm."""
    trunk = model.base_model
    layers, norm = getattr(trunk, "layers", None), getattr(trunk, "norm", None)
    if layers is None or norm is None:
        raise InputError(
            f"{type(model).__name__}: expected a trunk with `layers` and `norm` (Llama, Qwen, Mistral, SmolLM and "
            "their like); this architecture is not supported: choose another model.base"
        )
    return trunk, layers, norm


def require_trunk(folder: Path) -> None:
    """Refuse a base model whose states could not be read, before it is trained: by its config.json, without weights.

    Raises:
        InputError: no causal language model that transformers knows, or a trunk of another shape.
    """
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{folder} is no causal language model that can be loaded: {describe_loading_error(error)}"
        ) from error
    find_trunk(model)
