from __future__ import annotations

import pytest

from jobs.prepare.tasks import Example, make_example, task_columns
from pipeline_common.config import DatasetColumns
from pipeline_common.prompts import Turn

ACCEPTED = "Human: Hello.\n\nAssistant: Hi!\n\nHuman: How?\n\nAssistant: Like this."


def example_of(task: str, row: dict[str, str]) -> Example:
    made = make_example(task, row)  # type: ignore[arg-type]
    assert isinstance(made, Example)
    return made


def test_teacher_is_prompt_to_instruction_with_the_humans_of_the_transcript() -> None:
    made = example_of(
        "teacher",
        {"prompt": "You kill it, teacher.", "instruction": "Be kind.", "accepted": ACCEPTED, "rejected": "x"},
    )
    assert made.turns == (Turn("user", "You kill it, teacher."),)
    assert made.answer == "Be kind."
    assert made.human_texts == ("Hello.", "How?")
    assert not made.identical_pair


def test_sft_safe_is_the_accepted_answer_to_the_last_human_turn_with_its_context() -> None:
    made = example_of("sft_safe", {"accepted": ACCEPTED, "rejected": ACCEPTED})
    assert made.turns == (Turn("user", "Hello."), Turn("assistant", "Hi!"), Turn("user", "How?"))
    assert made.answer == "Like this."
    assert made.prompt == "How?"
    assert made.identical_pair


@pytest.mark.parametrize(
    "accepted",
    ["Human: a", "Human: a\n\nAssistant:", "Human: a\n\nAssistant: b\n\nHuman:", "Assistant: b", "only a sentence"],
)
def test_sft_safe_without_a_final_answer_is_no_example(accepted: str) -> None:
    assert make_example("sft_safe", {"accepted": accepted}) == "no_answer"


@pytest.mark.parametrize("row", [{"prompt": "", "instruction": "x"}, {"prompt": "x", "instruction": ""}])
def test_teacher_without_prompt_or_instruction_is_empty(row: dict[str, str]) -> None:
    assert make_example("teacher", row) == "empty"


def test_without_transcripts_the_prompt_itself_is_what_the_human_said() -> None:
    assert example_of("teacher", {"prompt": "How?", "instruction": "So."}).human_texts == ("How?",)
    inside = example_of("teacher", {"prompt": "Teach.\n\nHuman: a\n\nAssistant: b", "instruction": "So."})
    assert inside.human_texts == ("a",)


def test_two_empty_responses_are_no_identical_pair() -> None:
    row = {"prompt": "a", "instruction": "b", "accepted": "", "rejected": ""}
    assert not example_of("teacher", row).identical_pair


def test_columns_of_the_tasks() -> None:
    needed, welcome = task_columns("teacher", DatasetColumns(rejected=""))
    assert needed == {"prompt": "Prompt", "instruction": "Instruction generated"}
    assert welcome == {"accepted": "Accepted Response"}
    needed, welcome = task_columns("sft_safe", DatasetColumns())
    assert (list(needed), list(welcome)) == (["accepted"], ["rejected"])
