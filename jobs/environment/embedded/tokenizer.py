"""The tokenizer of an embedded model: byte-level BPE with distinct BOS, EOS and padding tokens.

It behaves as Llama-3's does: `tokenizer(text)` puts BOS in front (and never EOS behind) unless told
`add_special_tokens=False`. The chat template writes the plan's format, and its tokens equal those of
BOS + ids("[INST] {prompt} [/INST]") + ids(" {answer}") + EOS.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

BOS: Final = "<s>"
EOS: Final = "</s>"
PAD: Final = "<pad>"

PROMPT_FORMAT: Final = "[INST] {prompt} [/INST]"
ANSWER_FORMAT: Final = " {answer}"

CHAT_TEMPLATE: Final = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] | trim + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] | trim + eos_token }}"
    "{% else %}{{ raise_exception('only user and assistant turns are known') }}{% endif %}"
    "{% endfor %}"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int, max_length: int) -> Any:
    """Train a byte-level BPE on the texts.

    Args:
        texts: What the model will read, in its own format.
        vocab_size: Entries including the three special tokens.
        max_length: Of the model, in tokens.

    Returns:
        A `transformers.PreTrainedTokenizerFast`.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        padding_side="right",
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def encode_conversation(tokenizer: Any, prompt: str, answer: str) -> tuple[list[int], int]:
    """Encode one conversation: BOS, prompt, answer, EOS.

    Prompt and answer are encoded apart, so the prompt's tokens are the same with and without an answer.

    Returns:
        The token ids, and how many of them belong to the prompt (BOS included).
    """
    prompt_ids = tokenizer.encode(PROMPT_FORMAT.format(prompt=prompt), add_special_tokens=False)
    answer_ids = tokenizer.encode(ANSWER_FORMAT.format(answer=answer), add_special_tokens=False)
    ids = [tokenizer.bos_token_id, *prompt_ids, *answer_ids, tokenizer.eos_token_id]
    return ids, 1 + len(prompt_ids)
