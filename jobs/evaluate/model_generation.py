"""Greedy answers, in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

from transformers import GenerationConfig

from jobs.evaluate.batching import token_budget_batches
from jobs.evaluate.model import pad_left
from jobs.evaluate.model_decoding import decode_greedily
from pipeline_common.gpu.recordable import can_be_recorded
from pipeline_common.progress import track


@dataclass(frozen=True)
class Generated:
    """One answer."""

    text: str
    token_ids: tuple[int, ...]
    """Without the token that ended it."""
    stop_id: int | None
    """The token that ended it; None = cut by the length limit."""

    @property
    def finished(self) -> bool:
        """Whether the model stopped by itself."""
        return self.stop_id is not None


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    stop_ids: Sequence[int],
    pad_id: int,
    max_new_tokens: int,
    batch_tokens: int,
    within: Sequence[int] | None = None,
    decoder: Literal["auto", "steps", "library"] = "auto",
    recording: Callable[[], AbstractContextManager[None]] = nullcontext,
    what: str = "answers",
) -> list[Generated]:
    """Answer every prompt with the most probable token at each step.

    Args:
        model: a causal language model of transformers.
        tokenizer: its tokenizer, to turn ids into text.
        prompts: token ids of each prompt [N].
        stop_ids: ids at which an answer ends.
        pad_id: padding token; may be one of `stop_ids`.
        max_new_tokens: most tokens of an answer, the stop token included.
        batch_tokens: most tokens in a batch, answers included.
        within: prompts that may share a batch, as so many in a row each; None = all of them.
        decoder: "steps" = one recorded step repeated (see `model_decoding`), "library" = transformers' own loop;
            "auto" = steps on a GPU where the model can be recorded.
        recording: entered while a step is recorded, to time it.
        what: for the progress display.

    Returns:
        N answers in the order of `prompts`.
    """
    greedy = _most_probable(stop_ids, pad_id, max_new_tokens, num_beams=1)
    ends = frozenset(stop_ids)
    answers: dict[int, Generated] = {}
    device = str(next(model.parameters()).device)
    by_steps = decoder == "steps" or (decoder == "auto" and device != "cpu" and can_be_recorded(model.config))
    with track(what, len(prompts)) as advance:
        for batch in token_budget_batches([len(ids) + max_new_tokens for ids in prompts], batch_tokens, within=within):
            tokens, mask = pad_left([prompts[index] for index in batch], pad_id, device)
            if by_steps:
                rows = decode_greedily(
                    model,
                    tokens,
                    mask,
                    stop_ids=stop_ids,
                    pad_id=pad_id,
                    max_new_tokens=max_new_tokens,
                    recording=recording,
                )
            else:
                output = model.generate(input_ids=tokens, attention_mask=mask, generation_config=greedy)
                rows = output[:, tokens.shape[1] :].tolist()
            for index, row in zip(batch, rows, strict=True):
                answers[index] = _cut(tokenizer, row, ends)
            advance(len(answers))
    return [answers[index] for index in range(len(prompts))]


def beam_openings(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    stop_ids: Sequence[int],
    pad_id: int,
    tokens: int,
    beams: int,
    batch_tokens: int,
    within: Sequence[int] | None = None,
    what: str = "openings",
) -> list[list[Generated]]:
    """The most probable beginnings of an answer to every prompt, by beam search.

    Args:
        model: a causal language model of transformers.
        tokenizer: its tokenizer.
        prompts: token ids of each prompt [N].
        stop_ids: ids at which an answer ends.
        pad_id: padding token.
        tokens: length of a beginning.
        beams: how many per prompt.
        batch_tokens: most tokens in a batch, all beams included.
        within: prompts that may share a batch, as so many in a row each; None = all of them.
        what: for the progress display.

    Returns:
        N lists of `beams` beginnings, the most probable first.
    """
    search = _most_probable(
        stop_ids,
        pad_id,
        tokens,
        num_beams=beams,
        num_return_sequences=beams,
        # Summed log-probabilities, so that beginnings that ended early are not favoured.
        length_penalty=0.0,
        early_stopping=False,
    )
    ends = frozenset(stop_ids)
    found: dict[int, list[Generated]] = {}
    device = str(next(model.parameters()).device)
    with track(what, len(prompts)) as advance:
        for batch in token_budget_batches(
            [(len(ids) + tokens) * beams for ids in prompts], batch_tokens, within=within
        ):
            ids, mask = pad_left([prompts[index] for index in batch], pad_id, device)
            output = model.generate(input_ids=ids, attention_mask=mask, generation_config=search)
            rows = output[:, ids.shape[1] :].tolist()
            for place, index in enumerate(batch):
                found[index] = [_cut(tokenizer, row, ends) for row in rows[place * beams : (place + 1) * beams]]
            advance(len(found))
    return [found[index] for index in range(len(prompts))]


def _most_probable(stop_ids: Sequence[int], pad_id: int, most: int, **search: Any) -> GenerationConfig:
    """Everything that bends the choice is set, for what is unset comes from the model's own sampling defaults."""
    return GenerationConfig(
        do_sample=False,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        max_new_tokens=most,
        eos_token_id=list(stop_ids),
        pad_token_id=pad_id,
        use_cache=True,
        **search,
    )


def _cut(tokenizer: Any, row: Sequence[int], ends: frozenset[int]) -> Generated:
    """The answer up to its first stop token; what follows it is padding."""
    size = next((place for place, token in enumerate(row) if token in ends), len(row))
    ids = tuple(int(token) for token in row[:size])
    text = str(tokenizer.decode(list(ids), skip_special_tokens=True)).strip()
    return Generated(text=text, token_ids=ids, stop_id=int(row[size]) if size < len(row) else None)
