"""What one row of the fine-tuning set teaches: a conversation that ends with the user, and the answer to it.

`teacher` is the plan's task, `Prompt` -> `Instruction generated`. `sft_safe` trains on the accepted answer itself: the
last human turn of the accepted transcript with all turns before it as context.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from jobs.prepare.transcripts import human_turns, join_turns, parse_transcript
from pipeline_common.config import DatasetColumns
from pipeline_common.prompts import Turn

Task = Literal["teacher", "sft_safe"]
Role = Literal["prompt", "instruction", "accepted", "rejected"]

_NEEDED: Final[dict[Task, tuple[Role, ...]]] = {"teacher": ("prompt", "instruction"), "sft_safe": ("accepted",)}
_WELCOME: Final[dict[Task, tuple[Role, ...]]] = {"teacher": ("accepted", "rejected"), "sft_safe": ("rejected",)}


@dataclass(frozen=True)
class Example:
    """One thing to learn."""

    turns: tuple[Turn, ...]
    """The conversation; the last turn is the user's."""
    answer: str
    human_texts: tuple[str, ...]
    """What humans said, for the safety category and for overlap with the labelled prompts; () = nobody found."""
    identical_pair: bool
    """The accepted and the rejected response are the same text."""

    @property
    def prompt(self) -> str:
        """The last user turn."""
        return self.turns[-1].content


def task_columns(task: Task, columns: DatasetColumns) -> tuple[dict[Role, str], dict[Role, str]]:
    """Which columns a task reads: (those it cannot do without, those that may be declared absent by an empty name)."""
    named: dict[Role, str] = {
        "prompt": columns.prompt,
        "instruction": columns.instruction,
        "accepted": columns.accepted,
        "rejected": columns.rejected,
    }
    needed = {role: named[role] for role in _NEEDED[task]}
    welcome = {role: named[role] for role in _WELCOME[task] if named[role]}
    return needed, welcome


def make_example(task: Task, row: Mapping[Role, str]) -> Example | Literal["empty", "no_answer"]:
    """Turn a row into an example, or say why it is none.

    Args:
        task: which of the two.
        row: stripped texts by role; absent columns are absent keys.

    Returns:
        The example; "empty" when a text it needs is empty; "no_answer" when a transcript does not end with an answer
        of the assistant to a human turn (`sft_safe` only).
    """
    pair = (row.get("accepted"), row.get("rejected"))
    identical = pair[0] is not None and bool(pair[0]) and pair[0] == pair[1]
    if task == "teacher":
        prompt, instruction = row["prompt"], row["instruction"]
        if not prompt or not instruction:
            return "empty"
        return Example((Turn("user", prompt),), instruction, tuple(_human_texts(row)), identical)
    if not row["accepted"]:
        return "empty"
    written = parse_transcript(row["accepted"])
    turns = join_turns(written)
    if len(turns) < 2 or turns[-1].role != "assistant" or written[-1].role != "assistant" or not written[-1].content:
        return "no_answer"
    humans = tuple(turn.content for turn in turns if turn.role == "user")
    return Example(tuple(turns[:-1]), turns[-1].content, humans, identical)


def _human_texts(row: Mapping[Role, str]) -> list[str]:
    """Human turns of a teacher row: from the transcript, never from the teacher's own words around it."""
    if "accepted" in row:
        return human_turns(row["accepted"])
    # A set without transcripts: the prompt may hold one, and otherwise is the request itself.
    if parse_transcript(row["prompt"]):
        return human_turns(row["prompt"])
    return [row["prompt"]]
