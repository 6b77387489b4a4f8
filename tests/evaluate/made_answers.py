"""Answers of the small models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jobs.evaluate.model_generation import Generated, generate


def answered(
    pair: Any,
    prompts: Sequence[Sequence[int]],
    role: str = "base",
    *,
    stop_ids: Sequence[int] = (2,),
    max_new_tokens: int = 12,
    batch_tokens: int = 4096,
    **options: Any,
) -> list[Generated]:
    """A role's greedy answers; `options` are those of `generate`."""
    with pair.playing(role) as model:
        return generate(
            model,
            pair.tokenizer,
            prompts,
            stop_ids=stop_ids,
            pad_id=0,
            max_new_tokens=max_new_tokens,
            batch_tokens=batch_tokens,
            **options,
        )
