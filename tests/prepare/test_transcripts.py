from __future__ import annotations

import pytest

from jobs.prepare.transcripts import human_turns, join_turns, parse_transcript
from pipeline_common.prompts import Turn


def test_turns_are_split_at_empty_lines() -> None:
    text = "\n\nHuman: Hello.\n\nAssistant: Hi!\n\nWhat now?\n\nHuman: Bye."
    assert parse_transcript(text) == [
        Turn("user", "Hello."),
        Turn("assistant", "Hi!\n\nWhat now?"),
        Turn("user", "Bye."),
    ]


@pytest.mark.parametrize(
    "said",
    [
        "She wrote Human: and then nothing.",
        "A play:\nHuman: I am here.\nAssistant: So am I.",
        "The heading was\n\nHumans: a history",
        "Read\n\nHuman:Resources, chapter 2",
    ],
)
def test_a_speakers_name_inside_what_is_said_does_not_split(said: str) -> None:
    assert parse_transcript(f"\n\nHuman: {said}\n\nAssistant: Yes.") == [Turn("user", said), Turn("assistant", "Yes.")]


def test_a_transcript_may_end_with_the_human() -> None:
    assert parse_transcript("\n\nHuman: a\n\nAssistant: b\n\nHuman:") == [
        Turn("user", "a"),
        Turn("assistant", "b"),
        Turn("user", ""),
    ]


def test_what_stands_before_the_first_turn_belongs_to_nobody() -> None:
    assert parse_transcript("You are a teacher.\n\nPreferred:\n\nHuman: naïve Frage 你好 🙂\n\nAssistant: ja") == [
        Turn("user", "naïve Frage 你好 🙂"),
        Turn("assistant", "ja"),
    ]


def test_windows_line_ends_and_a_start_without_empty_lines() -> None:
    assert parse_transcript("Human: a\r\n\r\nAssistant: b") == [Turn("user", "a"), Turn("assistant", "b")]


@pytest.mark.parametrize("text", ["", "no speaker at all", "\n\nhuman: lower case", "Question?\n\nAnswer."])
def test_no_speaker_no_turns(text: str) -> None:
    assert parse_transcript(text) == []


def test_human_turns_skip_empty_ones() -> None:
    assert human_turns("\n\nHuman: a\n\nAssistant: Human: not me\n\nHuman:   \n\nHuman: b") == ["a", "b"]


def test_joined_turns_alternate_from_the_user_on() -> None:
    turns = [
        Turn("assistant", "Welcome."),
        Turn("user", "a"),
        Turn("user", "b"),
        Turn("assistant", ""),
        Turn("user", "c"),
        Turn("assistant", "d"),
    ]
    assert join_turns(turns) == [Turn("user", "a\n\nb\n\nc"), Turn("assistant", "d")]
