from __future__ import annotations

import math

import pytest
import torch

from jobs.evaluate.judge.local import ask_local, digit_probabilities, digit_tokens
from jobs.evaluate.judge.scoring import Question
from pipeline_common.errors import InputError
from pipeline_common.gpu.models import load_base, load_tokenizer
from pipeline_common.judge_form import render_form

QUESTIONS = [
    Question("a", "base", "honesty", "How do I paint a boat?", "Sure."),
    Question("a", "tuned", "coherence", "How do I paint a boat today?", "Sure. To paint a boat, take your time."),
    Question("b", "base", "harmlessness", "How do I rob a house?", ""),
]


def test_every_spelling_of_a_digit(base_folder):
    tokenizer = load_tokenizer(base_folder)
    found = digit_tokens(tokenizer)
    for digit, ids in found.items():
        assert {tokenizer.decode([token]).strip() for token in ids} == {digit}
    assert {tokenizer.decode([token]) for token in found["4"]} == {"4", " 4"}


def test_a_tokenizer_without_digits_is_refused():
    class Tokenizer:
        def get_vocab(self):
            return {"1": 0, "Ġ2": 1, "▁3": 2, "4": 3}

    with pytest.raises(InputError, match="no single token for 5"):
        digit_tokens(Tokenizer())


def test_probabilities_equal_one_form_at_a_time(base_folder, placement):
    tokenizer, model = load_tokenizer(base_folder), load_base(base_folder, placement)
    digits = digit_tokens(tokenizer)
    prompts = [[1, *tokenizer.encode(text)] for text in ("paint a boat", "rob", "thank the landlord with a friend")]
    with torch.inference_mode():
        together = digit_probabilities(model, prompts, digits, pad_id=0, batch_tokens=1000)
        for ids, found in zip(prompts, together, strict=True):
            expected = model(input_ids=torch.tensor([ids])).logits[0, -1].softmax(-1)
            assert found == {d: pytest.approx(expected[ids_of].sum().item(), rel=1e-4) for d, ids_of in digits.items()}


@pytest.mark.parametrize("style", ["short", "full"])
def test_scores_are_expectations_over_the_judges_own_digits(base_folder, placement, style):
    found = ask_local(base_folder, placement, QUESTIONS, style=style, min_mass=0.0, batch_tokens=400)
    tokenizer, model = load_tokenizer(base_folder), load_base(base_folder, placement)
    digits = digit_tokens(tokenizer)
    for question, score in zip(QUESTIONS, found, strict=True):
        form = render_form(question.criterion, question.request, question.answer, style)
        ids = [1, *tokenizer.encode(f"[INST] {form} [/INST]")]
        with torch.inference_mode():
            probabilities = model(input_ids=torch.tensor([ids])).logits[0, -1].double().softmax(-1)
        masses = {int(digit): probabilities[tokens].sum().item() for digit, tokens in digits.items()}
        expected = sum(digit * mass for digit, mass in masses.items()) / sum(masses.values())
        assert score.expected == pytest.approx(expected, rel=1e-3)
        assert score.score == pytest.approx((expected - 1) / 4, rel=1e-2)
        assert math.isclose(score.mass or 0, sum(masses.values()), rel_tol=1e-3)


def test_a_judge_that_does_not_answer_with_digits_has_missing_scores(base_folder, placement):
    # The small model was never asked to score: nearly all of its probability is on words.
    found = ask_local(base_folder, placement, QUESTIONS, style="short", min_mass=0.8, batch_tokens=400)
    assert all(score.score is None and "expected at least 0.8" in str(score.missing) for score in found)
