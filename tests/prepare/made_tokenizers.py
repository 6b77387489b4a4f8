"""Small tokenizers of the kinds that models have, trained on a few sentences in a second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
LLAMA3_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
_SENTENCES = [
    "How do I repair a garden fence before the winter comes?",
    "Of course. To repair a garden fence, take two boards, a hammer and your time; it's 15 minutes' work!",
    "[INST] Can you tell me what's on the table? [/INST] There are 2,763 lamps (old ones) and a naïve café menu.",
    "I'm sorry, but I can't help with that.\n\nHuman: Why not?\n\nAssistant: Because it would hurt somebody.",
]
_LLAMA3_SPECIALS = [
    "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
    "<|finetune_right_pad_id|>",
]  # fmt: skip


def byte_level(pre_tokenizer: Any, specials: list[str], vocab_size: int = 400) -> Tokenizer:
    """A byte-level BPE behind some pre-tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=specials,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_SENTENCES * 20, trainer)
    return tokenizer


def llama2_style(**settings: Any) -> Any:
    """GPT-2's splitting with `<s>` and `</s>`, as the embedded model has."""
    backend = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), ["<s>", "</s>", "<pad>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>", **settings
    )


def smollm_style() -> Any:
    """GPT-2's splitting after digits were set apart."""
    steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    backend = byte_level(pre_tokenizers.Sequence(steps), ["<|endoftext|>"])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|endoftext|>", eos_token="<|endoftext|>")


def llama3_style(split: str = LLAMA3_SPLIT) -> Any:
    """Llama 3's splitting, special tokens and chat template."""
    steps = [
        pre_tokenizers.Split(Regex(split), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    backend = byte_level(pre_tokenizers.Sequence(steps), _LLAMA3_SPECIALS)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        chat_template=LLAMA3_TEMPLATE,
    )


def sentencepiece_style() -> Any:
    """Words led by a mark instead of a space, as sentencepiece writes them: nothing may be cut here."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator(_SENTENCES * 20, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def save_model_folder(tokenizer: Any, folder: Path) -> Path:
    """A folder that *environment* would take for a local Llama, as far as its tokenizer goes."""
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return folder
