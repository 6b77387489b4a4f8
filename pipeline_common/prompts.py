"""One prompt format from preparation to evaluation.

`inst` is the plan's `<s>[INST] {prompt} [/INST] {instruction}</s>`, where `<s>` and `</s>` stand for the tokenizer's
own BOS and EOS, added once and as ids. `chat_template` is whatever the model's own template says. In both, what people
wrote can never become a control token: `</s>` or `<|eot_id|>` inside a text stays text. Prompt and answer are encoded
apart and joined, so the last prompt token is the same with and without an answer. The tokenizer is handed in; nothing
here imports a model library.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline_common.errors import ConfigError, InputError

PromptFormat = Literal["inst", "chat_template"]


@dataclass(frozen=True)
class Turn:
    """One message of a conversation; a prompt ends with a user's turn."""

    role: Literal["user", "assistant"]
    content: str


def encode_prompts(
    tokenizer: Any, conversations: Sequence[Sequence[Turn]], prompt_format: PromptFormat
) -> list[list[int]]:
    """Token ids of each prompt, from BOS to the last token before the answer.

    Args:
        tokenizer: a Hugging Face tokenizer.
        conversations: B conversations, each ending with a user's turn.
        prompt_format: how they are written down.

    Returns:
        B lists of token ids.

    Raises:
        InputError: the tokenizer lacks what the format needs.
    """
    for turns in conversations:
        if not turns or turns[-1].role != "user":
            raise ValueError("a prompt ends with a user's turn")
    if prompt_format == "chat_template":
        return _encode_templated(tokenizer, conversations, lambda turns: _render(tokenizer, turns))
    bos, eos = boundary_ids(tokenizer)
    # Single-turn prompts, nearly all there are, go through the tokenizer in one batch.
    pieces: list[str] = []
    owners: list[tuple[int, bool]] = []
    for row, turns in enumerate(conversations):
        for turn in turns:
            user = turn.role == "user"
            pieces.append(f"[INST] {turn.content} [/INST]" if user else f" {turn.content}")
            owners.append((row, user))
    encoded: list[list[int]] = [[bos] for _ in conversations]
    for (row, user), ids in zip(owners, _encode(tokenizer, pieces, control_tokens=False), strict=True):
        encoded[row].extend(ids if user else [*ids, eos])
    return encoded


def encode_answers(
    tokenizer: Any, conversations: Sequence[Sequence[Turn]], answers: Sequence[str], prompt_format: PromptFormat
) -> list[list[int]]:
    """Token ids of each answer as it follows its prompt, up to and with the token that ends it.

    Args:
        tokenizer: a Hugging Face tokenizer.
        conversations: B conversations, each ending with a user's turn (a chat template may depend on them).
        answers: B answers.
        prompt_format: how they are written down.

    Returns:
        B lists of token ids.

    Raises:
        InputError: the tokenizer lacks what the format needs, or its template does not append.
    """
    if prompt_format == "inst":
        _, eos = boundary_ids(tokenizer)
        return [[*ids, eos] for ids in _encode(tokenizer, [f" {answer}" for answer in answers], control_tokens=False)]

    def render_rest(turns: Sequence[Turn]) -> str:
        before = _render(tokenizer, turns[:-1])
        full = _render(tokenizer, turns)
        if not full.startswith(before):
            raise InputError(
                "the tokenizer's chat template does not continue its own generation prompt, so an answer cannot be "
                "told from its prompt; use prepare.prompt_format=inst"
            )
        return full[len(before) :]

    completed = [[*turns, Turn("assistant", answer)] for turns, answer in zip(conversations, answers, strict=True)]
    return _encode_templated(tokenizer, completed, render_rest)


def render_text(tokenizer: Any, turns: Sequence[Turn], answer: str, prompt_format: PromptFormat) -> str:
    """The formatted text of one row, for people to read: control tokens by their names."""
    if prompt_format == "chat_template":
        return _render(tokenizer, [*turns, Turn("assistant", answer)])
    text = "".join(
        f"[INST] {turn.content} [/INST]" if turn.role == "user" else f" {turn.content}{tokenizer.eos_token}"
        for turn in turns
    )
    return f"{tokenizer.bos_token}{text} {answer}{tokenizer.eos_token}"


def boundary_ids(tokenizer: Any) -> tuple[int, int]:
    """Ids of BOS and EOS.

    Raises:
        InputError: the tokenizer lacks one.
    """
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    if bos is None or eos is None:
        raise InputError(
            f"the tokenizer has BOS {tokenizer.bos_token!r} and EOS {tokenizer.eos_token!r}; the format `inst` needs "
            "both: use prepare.prompt_format=chat_template"
        )
    return int(bos), int(eos)


def stop_ids(tokenizer: Any, generation_eos: int | Sequence[int] | None, prompt_format: PromptFormat) -> list[int]:
    """Ids at which a generated answer ends: EOS, the model's own list, and the format's end of turn."""
    ids = {int(tokenizer.eos_token_id)} if tokenizer.eos_token_id is not None else set()
    if generation_eos is not None:
        ids.update([generation_eos] if isinstance(generation_eos, int) else (int(entry) for entry in generation_eos))
    if prompt_format == "chat_template":
        special = set(tokenizer.all_special_ids) | set(getattr(tokenizer, "added_tokens_decoder", {}))
        (ending,) = encode_answers(tokenizer, [[Turn("user", "a")]], ["b"], prompt_format)
        ids.update(token for token in ending if token in special)
    if not ids:
        raise InputError("neither tokenizer nor model says which token ends an answer (eos_token)")
    return sorted(ids)


def _encode_templated(
    tokenizer: Any, conversations: Sequence[Sequence[Turn]], render: Callable[[Sequence[Turn]], str]
) -> list[list[int]]:
    """Ids of rendered conversations, where only the template's own control tokens are control tokens."""
    names = sorted(_control_names(tokenizer), key=len, reverse=True)
    control = re.compile("|".join(re.escape(name) for name in names)) if names else None
    encoded: dict[int, list[int]] = {}
    plain: dict[int, str] = {}
    for row, turns in enumerate(conversations):
        if control is not None and any(control.search(turn.content) for turn in turns):
            encoded[row] = _encode_shielded(tokenizer, turns, render, control)
        else:
            plain[row] = render(turns)
    encoded.update(zip(plain, _encode(tokenizer, list(plain.values()), control_tokens=True), strict=True))
    return [encoded[row] for row in range(len(conversations))]


def _encode_shielded(
    tokenizer: Any, turns: Sequence[Turn], render: Callable[[Sequence[Turn]], str], control: re.Pattern[str]
) -> list[int]:
    """Ids of one conversation whose contents hold names of control tokens.

    Private-use characters stand for those names while the template is rendered and cut at its own control tokens, as
    the tokenizer would cut it; then the names come back as text.
    """
    contents = "".join(turn.content for turn in turns)
    free = (chr(code) for code in range(0xF0000, 0x10FFFE) if chr(code) not in contents)
    stand_ins = {name: next(free) for name in dict.fromkeys(control.findall(contents))}
    names = {stand_in: name for name, stand_in in stand_ins.items()}
    hidden = [Turn(turn.role, control.sub(lambda found: stand_ins[found[0]], turn.content)) for turn in turns]
    rendered = render(hidden)
    ids: list[int] = []
    end = 0
    for found in [*control.finditer(rendered), None]:
        text = rendered[end : found.start() if found else len(rendered)]
        text = "".join(names.get(character, character) for character in text)
        if text:
            ids += _encode(tokenizer, [text], control_tokens=False)[0]
        if found:
            ids.append(int(tokenizer.convert_tokens_to_ids(found[0])))
            end = found.end()
    return ids


def _control_names(tokenizer: Any) -> set[str]:
    """Texts that the tokenizer reads as control tokens."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    return {str(token) for token in tokenizer.all_special_tokens} | {str(token) for token in added if token.special}


def _render(tokenizer: Any, turns: Sequence[Turn]) -> str:
    if not tokenizer.chat_template:
        raise ConfigError("the model's tokenizer has no chat template; use prepare.prompt_format=inst")
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    ask = turns[-1].role == "user"
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask))


def _encode(tokenizer: Any, texts: Sequence[str], *, control_tokens: bool) -> list[list[int]]:
    """Ids of texts, nothing added; with `control_tokens` false a `</s>` inside a text stays text."""
    if not texts:
        return []
    encoded = tokenizer(list(texts), add_special_tokens=False, split_special_tokens=not control_tokens, verbose=False)
    return list(encoded["input_ids"])
