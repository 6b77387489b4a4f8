"""A judge on this machine: a local causal language model's probabilities of the digits at the score position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from jobs.evaluate.batching import token_budget_batches
from jobs.evaluate.judge.scoring import DigitScore, Question, score_probabilities
from jobs.evaluate.model import arithmetic, explain_memory, pad_left
from pipeline_common.errors import InputError
from pipeline_common.gpu.models import Placement, load_base, load_tokenizer
from pipeline_common.judge_form import DIGITS, FormStyle, render_form
from pipeline_common.progress import track
from pipeline_common.prompts import PromptFormat, Turn, encode_prompts

_SPACE_MARKS: Final = ("", " ", "Ġ", "▁")


def ask_local(
    folder: Path,
    placement: Placement,
    questions: Sequence[Question],
    *,
    style: FormStyle,
    min_mass: float,
    batch_tokens: int,
) -> list[DigitScore]:
    """Load a judge and let it fill in every form.

    Args:
        folder: a model folder.
        placement: device, arithmetic, quantisation.
        questions: what is asked.
        style: of the form; "short" is what the embedded judge was trained on.
        min_mass: less probability on the five digits together is a missing score.
        batch_tokens: most tokens in a batch.

    Returns:
        One score per question.

    Raises:
        InputError: the folder does not load, or its tokenizer has a digit that is not one token.
    """
    tokenizer = load_tokenizer(folder)
    digits = digit_tokens(tokenizer)
    prompt_format: PromptFormat = "chat_template" if tokenizer.chat_template and style == "full" else "inst"
    forms = [[Turn("user", render_form(q.criterion, q.request, q.answer, style))] for q in questions]
    prompts = encode_prompts(tokenizer, forms, prompt_format)
    with torch.inference_mode(), arithmetic(placement), explain_memory():
        model = load_base(folder, placement)
        found = digit_probabilities(
            model, prompts, digits, pad_id=int(tokenizer.pad_token_id), batch_tokens=batch_tokens
        )
    return [score_probabilities(probabilities, min_mass) for probabilities in found]


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


def digit_probabilities(
    model: Any, prompts: Sequence[Sequence[int]], digits: Mapping[str, Sequence[int]], *, pad_id: int, batch_tokens: int
) -> list[dict[str, float]]:
    """Probability of each digit as the next token after every prompt [N], all spellings added up."""
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
            columns = {digit: probabilities[:, list(ids)].sum(dim=1).tolist() for digit, ids in digits.items()}
            for row, index in enumerate(batch):
                result[index] = {digit: float(column[row]) for digit, column in columns.items()}
            advance(len(result))
    return [result[index] for index in range(len(prompts))]
