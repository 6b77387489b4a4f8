"""Making prompt + answer fit `max_length`: the answer is never cut, the prompt gives way from its beginning.

What stays of a prompt is what opens every prompt of the format (BOS, `[INST]`, a template's header), then its end with
`[/INST]` or the template's generation prompt: the model reads the latest words and still knows where the answer
starts. A conversation of several turns first loses whole exchanges, the oldest first; only the last user turn is ever
cut inside. An answer that leaves no room for one token of the user's text is dropped and counted, not shortened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from pipeline_common.prompts import PromptFormat, Turn, encode_answers, encode_prompts


@dataclass(frozen=True)
class Frame:
    """What a format puts around a single user turn, in tokens."""

    opening: tuple[int, ...]
    closing: int
    """Number of tokens after the user's text."""

    @property
    def smallest_prompt(self) -> int:
        """Tokens of a prompt with one token of text."""
        return len(self.opening) + 1 + self.closing


@dataclass(frozen=True)
class EncodedRow:
    """Token ids of one row."""

    prompt_ids: list[int]
    answer_ids: list[int]
    prompt_tokens: int
    """Length of the prompt before any cut."""

    @property
    def truncated(self) -> bool:
        """Whether the prompt was cut."""
        return len(self.prompt_ids) < self.prompt_tokens


def find_frame(tokenizer: Any, prompt_format: PromptFormat) -> Frame:
    """Find what surrounds a user's text, from two prompts that have nothing else in common."""
    first, second = encode_prompts(tokenizer, [[Turn("user", "a")], [Turn("user", "Z")]], prompt_format)
    return Frame(tuple(_common_prefix(first, second)), len(_common_prefix(first[::-1], second[::-1])))


def cut_prompt(ids: list[int], room: int, frame: Frame) -> list[int]:
    """Keep the opening and the end of a prompt.

    Args:
        ids: a prompt of one user turn.
        room: most tokens it may have; at least `frame.smallest_prompt`.
        frame: of the format.

    Returns:
        `ids` when it fits, else exactly `room` ids: those it shares with the opening, then its last ones.
    """
    if len(ids) <= room:
        return ids
    if room < frame.smallest_prompt:
        raise ValueError(f"room for {room} tokens is less than the smallest prompt, {frame.smallest_prompt}")
    opening = _common_prefix(ids[: len(frame.opening)], frame.opening)
    return [*opening, *ids[len(ids) - (room - len(opening)) :]]


def encode_rows(
    tokenizer: Any,
    conversations: Sequence[Sequence[Turn]],
    answers: Sequence[str],
    prompt_format: PromptFormat,
    max_length: int,
    frame: Frame,
) -> list[EncodedRow | None]:
    """Encode rows so that each has at most `max_length` tokens.

    Args:
        tokenizer: a Hugging Face tokenizer.
        conversations: B conversations, each ending with a user's turn.
        answers: B answers.
        prompt_format: how they are written down.
        max_length: tokens of prompt + answer.
        frame: of the format.

    Returns:
        B rows; None where the answer alone does not fit.
    """
    prompts = encode_prompts(tokenizer, conversations, prompt_format)
    targets = encode_answers(tokenizer, conversations, answers, prompt_format)
    rows: list[EncodedRow | None] = []
    long_conversations: list[int] = []
    for row, (prompt, target) in enumerate(zip(prompts, targets, strict=True)):
        room = max_length - len(target)
        if room < frame.smallest_prompt:
            rows.append(None)
        elif len(prompt) > room and len(conversations[row]) > 1:
            rows.append(EncodedRow(prompt, target, len(prompt)))
            long_conversations.append(row)
        else:
            rows.append(EncodedRow(cut_prompt(prompt, room, frame), target, len(prompt)))
    left = {row: list(conversations[row]) for row in long_conversations}
    while left:
        shorter = {row: _without_oldest(turns) for row, turns in left.items()}
        encoded = encode_prompts(tokenizer, list(shorter.values()), prompt_format)
        left = {}
        for (row, turns), prompt in zip(shorter.items(), encoded, strict=True):
            before = rows[row]
            assert before is not None
            room = max_length - len(before.answer_ids)
            if len(prompt) > room and len(turns) > 1:
                left[row] = turns
            else:
                rows[row] = EncodedRow(cut_prompt(prompt, room, frame), before.answer_ids, before.prompt_tokens)
    return rows


def _without_oldest(turns: Sequence[Turn]) -> list[Turn]:
    """The conversation from its second user turn on."""
    second = next(index for index, turn in enumerate(turns) if index > 0 and turn.role == "user")
    return list(turns[second:])


def _common_prefix(first: Sequence[int], second: Sequence[int]) -> list[int]:
    return [left for left, _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))]
