r"""Transcripts of the form "\n\nHuman: ...\n\nAssistant: ...", as in HH-RLHF and sets made from it.

A turn begins at the start of the text or after an empty line, with `Human:` or `Assistant:`; the same words inside a
sentence, or after a single line break, are part of what is said. What stands before the first turn belongs to nobody.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from pipeline_common.prompts import Turn

_ROLES: Final[dict[str, Literal["user", "assistant"]]] = {"Human": "user", "Assistant": "assistant"}
_MARKER: Final = re.compile(r"(?:\A\s*|\n[ \t]*\n\s*)(Human|Assistant):(?=\s|\Z)")


def parse_transcript(text: str) -> list[Turn]:
    r"""Split a transcript into its turns, in order; surrounding whitespace of a turn is dropped.

    Args:
        text: any text; `\r\n` counts as a line break.

    Returns:
        The turns as written: they may be empty, may not alternate and may end with the human. No turn found: [].
    """
    text = text.replace("\r\n", "\n")
    # [before, speaker, said, speaker, said, ...]
    parts = _MARKER.split(text)
    return [Turn(_ROLES[speaker], said.strip()) for speaker, said in zip(parts[1::2], parts[2::2], strict=True)]


def human_turns(text: str) -> list[str]:
    """What the human said in a transcript, turn by turn, without empty turns."""
    return [turn.content for turn in parse_transcript(text) if turn.role == "user" and turn.content]


def join_turns(turns: list[Turn]) -> list[Turn]:
    """Make turns alternate, beginning with the user: chat templates refuse anything else.

    Empty turns go, neighbours of one role become one turn with an empty line between, and what the assistant said
    before the first human turn goes.
    """
    joined: list[Turn] = []
    for turn in turns:
        if not turn.content or (not joined and turn.role == "assistant"):
            continue
        if joined and joined[-1].role == turn.role:
            joined[-1] = Turn(turn.role, f"{joined[-1].content}\n\n{turn.content}")
        else:
            joined.append(turn)
    return joined
