"""The tokenizer of the small models that tests make."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any


def train_tokenizer(texts: Iterable[str], folder: Path, **options: Any) -> Any:
    """A byte-level BPE, saved in `folder`: 0 is padding, 1 begins and 2 ends a text; the same bytes each time."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    trained = ByteLevelBPETokenizer()
    special = ["<pad>", "<s>", "</s>"]
    trained.train_from_iterator(list(texts), show_progress=False, special_tokens=special, **options)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained._tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    tokenizer.save_pretrained(folder)
    return tokenizer
