"""A judge on this machine: a local causal language model's probabilities of the digits at the score position.

A judge with a chat template of its own is asked through it: the form is the user's turn, and the score position is the
first token of the assistant's. One without (and the embedded one) is asked in the project's own `inst` format.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import torch

from jobs.evaluate.batching import token_budget_batches
from jobs.evaluate.judge.scoring import DigitScore, Question, score_probabilities
from jobs.evaluate.judge.steps import MAX_STEP_TOKENS, StepPlan
from jobs.evaluate.model import arithmetic, explain_memory, pad_left, resolve_batch_tokens
from jobs.evaluate.model_generation import generate
from jobs.evaluate.sharing import ALONE, Shard, deal, list_batches
from pipeline_common.errors import InputError
from pipeline_common.gpu.models import Placement, load_base, load_tokenizer
from pipeline_common.judge_form import DIGITS, FormStyle, render_form
from pipeline_common.progress import track
from pipeline_common.prompts import PromptFormat, Turn, encode_prompts, stop_ids

_SPACE_MARKS: Final = ("", " ", "Ġ", "▁")
_MIN_SPACE_MASS: Final = 0.01
"""Less probability on a space before the digit is not followed up."""


class LocalJudge:
    """A loaded judge; made by `open_judge`."""

    def __init__(self, model: Any, tokenizer: Any, style: FormStyle, batch_tokens: int) -> None:
        self.batch_tokens = batch_tokens
        """Most tokens that this process may put through at once."""
        self._model = model
        self._tokenizer = tokenizer
        self._style: FormStyle = style
        self._digits = digit_tokens(tokenizer)
        self._format: PromptFormat = "chat_template" if tokenizer.chat_template and style == "full" else "inst"
        self._pad_id = int(tokenizer.pad_token_id)

    def write(self, request: str) -> str:
        """The judge's own words, for the evaluation steps."""
        (reply,) = generate(
            self._model,
            self._tokenizer,
            encode_prompts(self._tokenizer, [[Turn("user", request)]], self._format),
            stop_ids=stop_ids(self._tokenizer, self._model.generation_config.eos_token_id, self._format),
            pad_id=self._pad_id,
            max_new_tokens=MAX_STEP_TOKENS,
            batch_tokens=self.batch_tokens,
            what="evaluation steps",
        )
        return reply.text

    def score(
        self,
        questions: Sequence[Question],
        steps: StepPlan,
        *,
        min_mass: float,
        batch_tokens: int,
        shard: Shard = ALONE,
    ) -> dict[int, DigitScore]:
        """Fill in the forms of a shard.

        Args:
            questions: what is asked, by all shards.
            steps: the evaluation steps.
            min_mass: less probability on the five digits together is a missing score.
            batch_tokens: most tokens in a batch, the same in all shards.
            shard: whose forms.

        Returns:
            Place in `questions` -> score.
        """
        forms = [
            [Turn("user", render_form(q.criterion, q.request, q.answer, self._style, steps[q.criterion].steps))]
            for q in questions
        ]
        prompts = encode_prompts(self._tokenizer, forms, self._format)
        lengths = [len(ids) for ids in prompts]
        batches = list_batches("judge", ["judge"], lengths, lambda sizes: token_budget_batches(sizes, batch_tokens))
        own = deal(batches, shard.count)[shard.index]
        found: dict[int, DigitScore] = {}
        with track("judge", sum(len(batch.rows) for batch in own)) as advance:
            for batch in own:
                masses = digit_probabilities(
                    self._model,
                    [prompts[row] for row in batch.rows],
                    self._digits,
                    pad_id=self._pad_id,
                    batch_tokens=min(batch_tokens, self.batch_tokens),
                    space_id=space_token(self._tokenizer),
                )
                scores = [score_probabilities(probabilities, min_mass) for probabilities in masses]
                found.update(zip(batch.rows, scores, strict=True))
                advance(len(found))
        return found


@contextmanager
def open_judge(
    folder: Path, placement: Placement, style: FormStyle, batch_tokens: int | Literal["auto"]
) -> Iterator[LocalJudge]:
    """Load a judge.

    Args:
        folder: a model folder.
        placement: device, arithmetic, quantisation.
        style: of the form; "short" is what the embedded judge was trained on.
        batch_tokens: most tokens in a batch; "auto" = what the free memory allows.

    Raises:
        InputError: the folder does not load, or its tokenizer has a digit that is not one token.
    """
    tokenizer = load_tokenizer(folder)
    digit_tokens(tokenizer)
    with torch.inference_mode(), arithmetic(placement), explain_memory():
        model = load_base(folder, placement)
        yield LocalJudge(model, tokenizer, style, resolve_batch_tokens(batch_tokens, model))


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
    return [result[index] for index in range(len(prompts))]
