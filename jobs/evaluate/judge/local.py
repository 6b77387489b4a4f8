"""A judge on this machine: a local causal language model's probabilities of the digits at the score position.

A judge with a chat template of its own is asked through it: the form is the user's turn, and the score position is the
first token of the assistant's. One without (and the embedded one) is asked in the project's own `inst` format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import torch

from jobs.evaluate.batching import token_budget_batches
from jobs.evaluate.judge.scoring import DigitScore, Question, score_probabilities
from jobs.evaluate.judge.steps import MAX_STEP_TOKENS, PlanSteps, StepPlan, fixed_steps
from jobs.evaluate.model import arithmetic, explain_memory, pad_left, resolve_batch_tokens
from jobs.evaluate.model_generation import generate
from pipeline_common.errors import InputError
from pipeline_common.gpu.models import Placement, load_base, load_tokenizer
from pipeline_common.judge_form import DIGITS, FormStyle, render_form
from pipeline_common.progress import track
from pipeline_common.prompts import PromptFormat, Turn, encode_prompts, stop_ids

_SPACE_MARKS: Final = ("", " ", "Ġ", "▁")
_MIN_SPACE_MASS: Final = 0.01
"""Less probability on a space before the digit is not followed up."""


def ask_local(
    folder: Path,
    placement: Placement,
    questions: Sequence[Question],
    *,
    style: FormStyle,
    min_mass: float,
    batch_tokens: int | Literal["auto"],
    plan_steps: PlanSteps | None = None,
) -> tuple[list[DigitScore], StepPlan]:
    """Load a judge and let it fill in every form.

    Args:
        folder: a model folder.
        placement: device, arithmetic, quantisation.
        questions: what is asked.
        style: of the form; "short" is what the embedded judge was trained on.
        min_mass: less probability on the five digits together is a missing score.
        batch_tokens: most tokens in a batch; "auto" = what the free memory allows.
        plan_steps: finds the evaluation steps, given a way to ask the judge; None = the fixed ones.

    Returns:
        One score per question, and the evaluation steps (which the short form does not show).

    Raises:
        InputError: the folder does not load, or its tokenizer has a digit that is not one token.
    """
    tokenizer = load_tokenizer(folder)
    digits = digit_tokens(tokenizer)
    prompt_format: PromptFormat = "chat_template" if tokenizer.chat_template and style == "full" else "inst"
    pad_id = int(tokenizer.pad_token_id)
    with torch.inference_mode(), arithmetic(placement), explain_memory():
        model = load_base(folder, placement)
        budget = resolve_batch_tokens(batch_tokens, model)

        def write(request: str) -> str:
            stops = stop_ids(tokenizer, model.generation_config.eos_token_id, prompt_format)
            prompt = encode_prompts(tokenizer, [[Turn("user", request)]], prompt_format)
            (reply,) = generate(
                model,
                tokenizer,
                prompt,
                stop_ids=stops,
                pad_id=pad_id,
                max_new_tokens=MAX_STEP_TOKENS,
                batch_tokens=budget,
                what="evaluation steps",
            )
            return reply.text

        steps = plan_steps(write) if plan_steps else fixed_steps()
        forms = [
            [Turn("user", render_form(q.criterion, q.request, q.answer, style, steps[q.criterion].steps))]
            for q in questions
        ]
        prompts = encode_prompts(tokenizer, forms, prompt_format)
        found = digit_probabilities(
            model, prompts, digits, pad_id=pad_id, batch_tokens=budget, space_id=space_token(tokenizer)
        )
    return [score_probabilities(probabilities, min_mass) for probabilities in found], steps


def digit_tokens(tokenizer: Any) -> dict[str, list[int]]:
    """Every token that spells a digit, with and without a leading space.

    Raises:
        InputError: a digit is no single token.
    """
    vocabulary: Mapping[str, int] = tokenizer.get_vocab()
    found = {
        digit: sorted({vocabulary[mark + digit] for mark in _SPACE_MARKS if mark + digit in vocabulary})
        for digit in DIGITS
    }
    if lacking := [digit for digit, ids in found.items() if not ids]:
        raise InputError(
            f"the judge's tokenizer has no single token for {', '.join(lacking)}; choose another evaluate.judge.model"
        )
    return found


def space_token(tokenizer: Any) -> int | None:
    """The token that is one space and nothing else; None where there is none."""
    vocabulary: Mapping[str, int] = tokenizer.get_vocab()
    return next((vocabulary[mark] for mark in _SPACE_MARKS[1:] if mark in vocabulary), None)


def digit_probabilities(
    model: Any,
    prompts: Sequence[Sequence[int]],
    digits: Mapping[str, Sequence[int]],
    *,
    pad_id: int,
    batch_tokens: int,
    space_id: int | None = None,
) -> list[dict[str, float]]:
    """Probability of each digit as the next thing said after every prompt [N], all spellings added up.

    Some vocabularies split " 4" into a space and "4". With `space_id` the probability of the space is followed up:
    P(digit) = P(digit token) + P(space) P(digit token | space).
    """
    vocabulary_ids = dict(digits)
    if space_id is not None:
        vocabulary_ids[" "] = [space_id]
    found = _next_token_masses(model, prompts, vocabulary_ids, pad_id=pad_id, batch_tokens=batch_tokens)
    spaces = [masses.pop(" ", 0.0) for masses in found]
    again = [index for index, mass in enumerate(spaces) if mass >= _MIN_SPACE_MASS]
    if again and space_id is not None:
        longer = [[*prompts[index], space_id] for index in again]
        after = _next_token_masses(model, longer, digits, pad_id=pad_id, batch_tokens=batch_tokens)
        for index, masses in zip(again, after, strict=True):
            found[index] = {digit: mass + spaces[index] * masses[digit] for digit, mass in found[index].items()}
    return found


def _next_token_masses(
    model: Any, prompts: Sequence[Sequence[int]], groups: Mapping[str, Sequence[int]], *, pad_id: int, batch_tokens: int
) -> list[dict[str, float]]:
    """Summed probability of each group of tokens as the next token after every prompt [N]."""
    device = str(next(model.parameters()).device)
    result: dict[int, dict[str, float]] = {}
    with track("judge", len(prompts)) as advance:
        for batch in token_budget_batches([len(ids) for ids in prompts], batch_tokens):
            tokens, mask = pad_left([prompts[index] for index in batch], pad_id, device)
            positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
            logits = model(
                input_ids=tokens, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=1
            ).logits
            probabilities = logits[:, -1].float().softmax(dim=-1)
            columns = {name: probabilities[:, list(ids)].sum(dim=1).tolist() for name, ids in groups.items()}
            for row, index in enumerate(batch):
                result[index] = {name: float(column[row]) for name, column in columns.items()}
            advance(len(result))
    return [result[index] for index in range(len(prompts))]
