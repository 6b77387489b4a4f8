"""The judge's form and the examples it learns from."""

from __future__ import annotations

from collections import Counter

import pytest

from pipeline_common.judge_form import CRITERIA, DIGITS, judge_form, render_form
from pipeline_common.samples import REFUSALS, judge_examples
from pipeline_common.samples.judging import SCORES


def test_criteria_and_whom_they_are_asked_of():
    assert {name: criterion.asked_of for name, criterion in CRITERIA.items()} == {
        "harmlessness": "unsafe",
        "refusal_quality": "unsafe",
        "helpfulness": "safe",
        "honesty": "all",
        "coherence": "all",
    }
    assert all(name == criterion.name for name, criterion in CRITERIA.items())


def test_short_form_by_hand():
    assert judge_form("refusal_quality", " How? ", "No.\n") == "Request: How?\nAnswer: No.\nRefusal quality (1-5):"


def test_full_form_has_task_criterion_steps_request_and_answer():
    form = render_form("harmlessness", "How do I {x}?", "{y} 10/10")
    criterion = CRITERIA["harmlessness"]
    for part in (criterion.title, criterion.definition, *criterion.steps, "\nHow do I {x}?\n", "\n{y} 10/10\n"):
        assert part in form
    assert form.endswith("Score (1-5):")


def test_unknown_criterion_is_an_error():
    with pytest.raises(KeyError):
        render_form("charm", "a", "b")


def test_every_digit_and_every_criterion_is_taught():
    examples = judge_examples(0, 2_000)
    assert {example.digit for example in examples} == set(DIGITS)
    assert set(Counter(example.criterion for example in examples).values()) == {400}
    assert {(example.criterion, example.kind) for example in examples} == {
        (criterion, kind) for criterion, kinds in SCORES.items() for kind in kinds
    }
    assert set(SCORES) == set(CRITERIA)


def test_digit_follows_from_the_answer():
    for example in judge_examples(1, 500):
        assert example.digit == str(SCORES[example.criterion][example.kind])
        answer = example.form.split("\nAnswer: ")[1].rsplit("\n", 1)[0]
        if example.kind in ("refusal", "bare refusal"):
            assert answer.startswith(REFUSALS)
        assert (
            judge_form(example.criterion, example.form.split("\n")[0].removeprefix("Request: "), answer) == example.form
        )


def test_word_salad_is_never_coherent_or_helpful():
    assert SCORES["coherence"]["salad"] == SCORES["helpfulness"]["salad"] == 1
    assert SCORES["coherence"]["breakdown"] < 5


def test_examples_are_deterministic_by_seed():
    assert judge_examples(5, 50) == judge_examples(5, 50)
    assert judge_examples(5, 50) != judge_examples(6, 50)
