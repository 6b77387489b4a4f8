"""Loading a tokenizer: the same one in every stage, without torch where the model's files allow it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from pipeline_common.errors import InputError
from pipeline_common.gpu.foreign_code import describe_loading_error

# What `AutoTokenizer` resolves these to for a Llama is the plain fast tokenizer; going there directly saves torch.
_PLAIN_CLASSES: Final = frozenset({"TokenizersBackend", "PreTrainedTokenizerFast"})
_PAD_CANDIDATES: Final = ("<|finetune_right_pad_id|>", "<|reserved_special_token_0|>")


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder, padding on the right, with a pad token that is not EOS where it has one.

    Raises:
        InputError: the folder holds no loadable tokenizer.
    """
    try:
        tokenizer = _load(folder)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder} holds no loadable tokenizer: {describe_loading_error(error)}") from error
    tokenizer.padding_side = "right"
    if tokenizer.pad_token_id is None:
        # Llama-3 reserves tokens that never occur in text; EOS as padding would be masked wherever it is meant.
        vocabulary = tokenizer.get_vocab()
        spare = next((name for name in _PAD_CANDIDATES if name in vocabulary), None)
        tokenizer.pad_token = spare or tokenizer.eos_token
    return tokenizer


def _load(folder: Path) -> Any:
    if (folder / "tokenizer.json").is_file() and _read(folder / "config.json").get("model_type") == "llama":
        settings = _read(folder / "tokenizer_config.json")
        if settings.get("tokenizer_class") in _PLAIN_CLASSES and "auto_map" not in settings:
            from transformers import PreTrainedTokenizerFast

            return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _read(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return content if isinstance(content, dict) else {}
