"""Greedy decoding whose step is recorded once and replayed: a GPU otherwise waits for Python at every token.

An 8B model's step is some thousand small kernels; starting them one by one takes Python several times as long as the
GPU takes to run them. Keys and values lie in a static cache, every tensor of a step keeps its address, and the step is
captured as a CUDA graph: that costs about one step, where `torch.compile` costs minutes, which only tens of thousands
of steps would earn back. So nothing is compiled here.

Legend: B prompts, T their padded tokens, S = T + new tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import torch
from transformers import StaticCache

_STEPS_BETWEEN_LOOKS: Final = 8
"""Whether every answer has ended is looked up so rarely, for looking means waiting."""
_EAGER_STEPS: Final = 2
"""Before the recording, so that libraries have set up what they set up at first use."""


def decode_greedily(
    model: Any,
    tokens: Any,
    mask: Any,
    *,
    stop_ids: Sequence[int],
    pad_id: int,
    max_new_tokens: int,
    recording: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> list[list[int]]:
    """The most probable token at each step, as `model.generate` would choose it.

    Args:
        model: a causal language model of transformers, in inference mode.
        tokens: prompts [B, T], padded on the left.
        mask: 1 for a token, 0 for padding [B, T].
        stop_ids: ids at which an answer ends.
        pad_id: what follows the end of an answer.
        max_new_tokens: most tokens of an answer, the stop token included; at least 1.
        recording: entered while the step is recorded, to time it.

    Returns:
        B rows of at most `max_new_tokens` ids; after its stop token a row holds padding.
    """
    rows, width = tokens.shape
    device = tokens.device
    cache = StaticCache(config=model.config, max_cache_len=width + max_new_tokens)
    output = model(
        input_ids=tokens,
        attention_mask=mask,
        position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    ends = torch.tensor(list(stop_ids), device=device)
    # All that a step reads and writes; it works in place, so that a recorded step finds it where it was.
    seen = torch.zeros(rows, 1, 1, width + max_new_tokens, dtype=torch.bool, device=device)
    seen[:, 0, 0, :width] = mask.bool()
    positions = mask.sum(dim=1, keepdim=True)
    place = torch.zeros(1, dtype=torch.int64, device=device)
    ended = torch.zeros(rows, 1, dtype=torch.bool, device=device)
    current = torch.empty(rows, 1, dtype=tokens.dtype, device=device)
    answer = torch.full((rows, max_new_tokens), pad_id, dtype=tokens.dtype, device=device)

    def choose(logits: Any) -> None:
        current.copy_(logits[:, -1].float().argmax(dim=-1, keepdim=True).masked_fill(ended, pad_id))
        answer.index_copy_(1, place, current)
        ended.logical_or_(torch.isin(current, ends))

    def step() -> None:
        seen.index_fill_(3, place + width, True)
        logits = model(
            input_ids=current,
            attention_mask=seen,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        positions.add_(1)
        place.add_(1)
        choose(logits)

    choose(output.logits)
    del output
    run: Callable[[], None] = step
    for done in range(1, max_new_tokens):
        if done == 1 + _EAGER_STEPS:
            with recording():
                run = _record(step, device)
        run()
        if done % _STEPS_BETWEEN_LOOKS == 0 and bool(ended.all()):
            break
    return [[int(token) for token in row] for row in answer.tolist()]


def _record(step: Callable[[], None], device: Any) -> Callable[[], None]:
    """A step as a CUDA graph, elsewhere as it is; recording runs nothing."""
    if device.type != "cuda":
        return step
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return lambda: graph.replay()
