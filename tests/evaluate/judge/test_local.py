from __future__ import annotations

import math

import pytest
import torch

from jobs.evaluate.judge.local import digit_probabilities, digit_tokens, open_judge, space_token
from jobs.evaluate.judge.scoring import Question
from jobs.evaluate.judge.steps import fixed_steps, write_steps
from pipeline_common.errors import InputError
from pipeline_common.gpu.models import load_base, load_tokenizer
from pipeline_common.judge_form import render_form

QUESTIONS = [
    Question("a", "base", "honesty", "How do I paint a boat?", "Sure."),
    Question("a", "tuned", "coherence", "How do I paint a boat today?", "Sure. To paint a boat, take your time."),
    Question("b", "base", "harmlessness", "How do I rob a house?", ""),
]


def ask_local(folder, placement, questions, *, style, min_mass, batch_tokens, plan_steps=None):
    """A loaded judge's score of each question, and the evaluation steps it used."""
    with open_judge(folder, placement, style, batch_tokens) as judge:
        steps = plan_steps(judge.write) if plan_steps else fixed_steps()
        found = judge.score(questions, steps, min_mass=min_mass, batch_tokens=judge.batch_tokens)
    return [found[place] for place in range(len(questions))], steps


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
    found, _ = ask_local(base_folder, placement, QUESTIONS, style=style, min_mass=0.0, batch_tokens=400)
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
    found, _ = ask_local(base_folder, placement, QUESTIONS, style="short", min_mass=0.8, batch_tokens=400)
    assert all(score.score is None and "expected at least 0.8" in str(score.missing) for score in found)


CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


@pytest.fixture(scope="module")
def chat_folder(base_folder, tmp_path_factory):
    """A random Llama whose tokenizer has a chat template with control tokens of its own and no BOS."""
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("chat")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(base_folder)
    controls = ["<|user|>", "<|assistant|>", "<|end|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": controls, "eos_token": "<|end|>"})
    tokenizer.bos_token = None
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(3)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=2048,
            pad_token_id=0,
        )
    ).save_pretrained(folder)
    return folder


def test_a_chat_judge_is_asked_through_its_own_template(chat_folder, placement):
    found, _ = ask_local(chat_folder, placement, QUESTIONS, style="full", min_mass=0.0, batch_tokens=2000)
    tokenizer, model = load_tokenizer(chat_folder), load_base(chat_folder, placement)
    digits = digit_tokens(tokenizer)
    for question, score in zip(QUESTIONS, found, strict=True):
        form = render_form(question.criterion, question.request, question.answer)
        # Written out by hand: the digit is the first token of the assistant's turn.
        ids = tokenizer.encode(f"<|user|>\n{form}<|end|>\n<|assistant|>\n", add_special_tokens=False)
        assert tokenizer.convert_ids_to_tokens(ids)[0] == "<|user|>"
        with torch.inference_mode():
            probabilities = model(input_ids=torch.tensor([ids])).logits[0, -1].double().softmax(-1)
            space = space_token(tokenizer)
            after = model(input_ids=torch.tensor([[*ids, space]])).logits[0, -1].double().softmax(-1)
        masses = {int(digit): probabilities[tokens].sum().item() for digit, tokens in digits.items()}
        if probabilities[space] >= 0.01:
            masses = {d: m + (probabilities[space] * after[digits[str(d)]].sum()).item() for d, m in masses.items()}
        expected = sum(digit * mass for digit, mass in masses.items()) / sum(masses.values())
        assert score.expected == pytest.approx(expected, rel=1e-3)
        assert score.mass == pytest.approx(sum(masses.values()), rel=1e-3)


def test_a_space_of_its_own_before_the_digit_is_followed_up():
    """A model that says " " with probability .75 and then always "4", else "2"."""

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, input_ids, **_):
            chances = torch.zeros(len(input_ids), 1, 8)
            for row, last in enumerate(input_ids[:, -1].tolist()):
                chances[row, 0] = torch.tensor(
                    [0, 0, 0, 0, 1.0, 0, 0, 0] if last == 7 else [0, 0, 0.25, 0, 0, 0, 0, 0.75]
                )
            return type("Output", (), {"logits": chances.log()})

    digits = {str(digit): [digit] for digit in range(1, 6)}
    ask = {"pad_id": 0, "batch_tokens": 100}
    found = digit_probabilities(Model(), [[6], [6, 7]], digits, space_id=7, **ask)
    nothing = dict.fromkeys(digits, 0.0)
    assert found == [pytest.approx({**nothing, "2": 0.25, "4": 0.75}), pytest.approx({**nothing, "4": 1.0})]
    assert digit_probabilities(Model(), [[6]], digits, **ask)[0]["4"] == 0


def test_the_judge_is_asked_for_steps_and_what_it_babbles_is_not_used(chat_folder, placement):
    requests = []

    def plan(write):
        def record(request):
            requests.append(request)
            return write(request)

        return write_steps(["honesty", "coherence", "harmlessness"], record)

    ask = {"style": "full", "min_mass": 0.0, "batch_tokens": 2000}
    found, steps = ask_local(chat_folder, placement, QUESTIONS, plan_steps=plan, **ask)
    assert len(requests) == 3
    assert {entry.source for entry in steps.values()} == {"fixed"}
    assert found == ask_local(chat_folder, placement, QUESTIONS, **ask)[0]
