from __future__ import annotations

from typing import Any

import pytest

from jobs.prepare.truncation import Frame, cut_prompt, encode_rows, find_frame
from pipeline_common.prompts import PromptFormat, Turn, encode_answers, encode_prompts
from tests.prepare.made_tokenizers import llama3_style

LONG = "First of all, " + "please " * 200 + "repair the fence."
FORMATS: list[PromptFormat] = ["inst", "chat_template"]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return llama3_style()


def test_cut_by_hand() -> None:
    # Opening 1 2, text 10..19, closing 8 9; room for 7 keeps the opening and the last five.
    ids = [1, 2, *range(10, 20), 8, 9]
    frame = Frame((1, 2), 2)
    assert cut_prompt(ids, 7, frame) == [1, 2, 17, 18, 19, 8, 9]
    assert cut_prompt(ids, 14, frame) == ids
    assert cut_prompt(ids, frame.smallest_prompt, frame) == [1, 2, 19, 8, 9]
    with pytest.raises(ValueError, match="smallest prompt, 5"):
        cut_prompt(ids, 4, frame)


@pytest.mark.parametrize("form", FORMATS)
def test_a_cut_prompt_keeps_its_opening_and_its_end_and_the_whole_answer(tokenizer: Any, form: PromptFormat) -> None:
    frame = find_frame(tokenizer, form)
    turns = [Turn("user", LONG)]
    (row,) = encode_rows(tokenizer, [turns], ["Take a hammer."], form, 64, frame)
    assert row is not None
    assert row.truncated
    assert len(row.prompt_ids) + len(row.answer_ids) == 64
    assert row.answer_ids == encode_answers(tokenizer, [turns], ["Take a hammer."], form)[0]
    (whole,) = encode_prompts(tokenizer, [turns], form)
    assert row.prompt_tokens == len(whole)
    text = tokenizer.decode(row.prompt_ids)
    assert text.startswith("<|begin_of_text|>[INST]" if form == "inst" else "<|begin_of_text|><|start_header_id|>user")
    tail = "repair the fence. [/INST]" if form == "inst" else "repair the fence.<|eot_id|><|start_header_id|>assistant"
    assert tail in text
    assert "First of all" not in text


@pytest.mark.parametrize("form", FORMATS)
def test_what_fits_exactly_is_not_cut(tokenizer: Any, form: PromptFormat) -> None:
    turns = [Turn("user", "How do I repair a fence?")]
    prompt, answer = encode_prompts(tokenizer, [turns], form)[0], encode_answers(tokenizer, [turns], ["Yes."], form)[0]
    frame = find_frame(tokenizer, form)
    (exact,) = encode_rows(tokenizer, [turns], ["Yes."], form, len(prompt) + len(answer), frame)
    (short,) = encode_rows(tokenizer, [turns], ["Yes."], form, len(prompt) + len(answer) - 1, frame)
    assert exact is not None
    assert (exact.prompt_ids, exact.truncated) == (prompt, False)
    assert short is not None
    assert (len(short.prompt_ids), short.truncated) == (len(prompt) - 1, True)


@pytest.mark.parametrize("form", FORMATS)
def test_an_answer_that_alone_does_not_fit_is_dropped_not_cut(tokenizer: Any, form: PromptFormat) -> None:
    frame = find_frame(tokenizer, form)
    turns = [Turn("user", LONG)]
    length = len(encode_answers(tokenizer, [turns], [LONG], form)[0])
    fits = length + frame.smallest_prompt
    rows = [encode_rows(tokenizer, [turns], [LONG], form, room, frame)[0] for room in (fits - 1, fits)]
    assert rows[0] is None
    assert rows[1] is not None
    assert len(rows[1].answer_ids) == length


@pytest.mark.parametrize("form", FORMATS)
def test_a_conversation_loses_its_oldest_exchanges_first(tokenizer: Any, form: PromptFormat) -> None:
    frame = find_frame(tokenizer, form)
    turns = [
        Turn("user", "oldest " * 30),
        Turn("assistant", "old answer"),
        Turn("user", "How do I repair a lamp?"),
        Turn("assistant", "With a hammer."),
        Turn("user", "And a fence?"),
    ]
    (kept,) = encode_prompts(tokenizer, [turns[2:]], form)
    (answer,) = encode_answers(tokenizer, [turns[2:]], ["The same."], form)
    other = [Turn("user", "Hello")]
    row, beside = encode_rows(tokenizer, [turns, other], ["The same.", "Hi"], form, len(kept) + len(answer), frame)
    assert row is not None
    assert row.prompt_ids == kept
    assert row.truncated
    assert beside is not None
    assert beside.prompt_ids == encode_prompts(tokenizer, [other], form)[0]
    # One token less: the next exchange goes as well, and what is left fits whole.
    row, _ = encode_rows(tokenizer, [turns, other], ["The same.", "Hi"], form, len(kept) + len(answer) - 1, frame)
    assert row is not None
    assert row.prompt_ids == encode_prompts(tokenizer, [turns[4:]], form)[0]
