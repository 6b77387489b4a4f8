"""The adapter as an artifact: PEFT's own format, the same bytes for the same training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipeline_common.gpu.models import ADAPTER_WEIGHTS

if TYPE_CHECKING:
    from pipeline_common.model_location import ResolvedModel

ADAPTER_CONFIG: Final = "adapter_config.json"
MODEL_CARD: Final = "README.md"
_KEPT: Final = {ADAPTER_WEIGHTS, ADAPTER_CONFIG, MODEL_CARD}


def save_adapter(model: Any, folder: Path, base: ResolvedModel, card: str) -> None:
    """Write adapter_model.safetensors, adapter_config.json and README.md, and nothing else.

    Args:
        model: a PeftModel.
        folder: where to.
        base: the base model, for the reference in the configuration.
        card: the model card's text.
    """
    # Embeddings are never trained; asking whether they were resized would make PEFT look at the hub.
    model.save_pretrained(str(folder), save_embedding_layers=False)
    path = folder / ADAPTER_CONFIG
    path.write_text(stable_config(path.read_text(encoding="utf-8"), base), encoding="utf-8")
    (folder / MODEL_CARD).write_text(card, encoding="utf-8")
    for entry in folder.iterdir():
        if entry.name not in _KEPT:
            entry.unlink()


def count_base_bytes(model: Any) -> int:
    """Bytes of frozen weights that this process keeps: all of them, or its part where the base is sharded."""
    frozen = (parameter for parameter in model.parameters() if not parameter.requires_grad)
    kept = (tensor.to_local() if hasattr(tensor, "to_local") else tensor for tensor in frozen)
    return sum(tensor.numel() * tensor.element_size() for tensor in kept)


def stable_config(text: str, base: ResolvedModel) -> str:
    """PEFT's configuration without what differs from process to process and from machine to machine.

    Args:
        text: adapter_config.json as PEFT writes it: module names in the order of a set, the base as a local folder.
        base: the base model; its configured reference and its commit take the folder's place.
    """
    config = json.loads(text)
    config["base_model_name_or_path"] = base.reference
    config["revision"] = base.commit if base.kind == "hub" else None
    for name, value in config.items():
        if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
            config[name] = sorted(value)
    return json.dumps(config, indent=2, sort_keys=True) + "\n"
