"""Batches of sequences of unequal length: sorted, so that little is padding, and bounded in tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

CPU_BATCH_TOKENS: Final = 4096
MOST_BATCH_TOKENS: Final = 16_384
"""An 8B model on an H200 is no faster with twice as many, and its last states travel to the host longer."""
_GPUS: Final = 4
"""That the batches of one reading divide among evenly, or 2."""
MOST_GENERATED_TOKENS: Final = 65_536
"""Of a batch that is answered: a step takes hardly longer for more rows."""
LEAST_BATCH_TOKENS: Final = 512
_MEMORY_SHARE: Final = 0.6
"""Of the free memory; the rest is for the allocator's gaps and for what the estimate leaves out."""


def token_budget_batches(
    lengths: Sequence[int], budget: int, max_rows: int | None = None, within: Sequence[int] | None = None
) -> list[list[int]]:
    """Group sequences of similar length.

    Args:
        lengths: tokens of each sequence [N].
        budget: most tokens in a batch, padding included; a longer sequence gets a batch of its own.
        max_rows: most sequences in a batch.
        within: sequences that may share a batch, as so many in a row each; None = all of them.

    Returns:
        Indices 0 ... N - 1, each once, longest first (within each such row), so that a batch too large for the memory
        shows at the start.
    """
    if within is not None:
        return _batch_each(lengths, within, lambda part: token_budget_batches(part, budget, max_rows))
    batches: list[list[int]] = []
    current: list[int] = []
    width = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        full = current and ((len(current) + 1) * width > budget or len(current) == max_rows)
        if not current or full:
            current = []
            batches.append(current)
            width = lengths[index]
        current.append(index)
    return batches


def flat_batches(lengths: Sequence[int], budget: int, within: Sequence[int] | None = None) -> list[list[int]]:
    """Group sequences that are laid end to end, so that none is padded, into batches of nearly equal tokens.

    Args:
        lengths: tokens of each sequence [N].
        budget: most tokens in a batch; a longer sequence gets a batch of its own.
        within: as for `token_budget_batches`.

    Returns:
        Indices 0 ... N - 1, each once, longest first, so that the longest attention shows at the start. Where they do
        not fit one batch, about a multiple of four of them, whoever reads them: the GPUs of a machine share them
        evenly, and the batches are the same with one GPU.
    """
    if within is not None:
        return _batch_each(lengths, within, lambda part: flat_batches(part, budget))
    # Nearly equal, for a last batch of a few sequences would leave most of a GPU idle.
    total = sum(lengths)
    count = -(-total // budget)
    if count > 1:
        count = -(-count // _GPUS) * _GPUS
    batches: list[list[int]] = []
    filled = done = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        # One that overshoots its even share by a part of a sequence is better than one batch more.
        if not batches or done * count >= total * len(batches) or filled + lengths[index] > budget:
            batches.append([])
            filled = 0
        batches[-1].append(index)
        filled += lengths[index]
        done += lengths[index]
    return batches


def _batch_each(
    lengths: Sequence[int], sizes: Sequence[int], batch: Callable[[Sequence[int]], list[list[int]]]
) -> list[list[int]]:
    found = []
    first = 0
    for size in sizes:
        found += [[first + index for index in part] for part in batch(lengths[first : first + size])]
        first += size
    return found


@dataclass(frozen=True)
class ModelShape:
    """What the memory of a forward pass follows from."""

    width: int
    mlp_width: int
    layers: int
    key_value_width: int
    """Of all key-value heads of a layer together."""
    item_bytes: int
    """Bytes of a number in the model's arithmetic."""

    @property
    def token_bytes(self) -> int:
        """Device memory that a token of a batch takes at the most, bytes.

        Without gradients one layer's intermediates live at a time: eight of the model's width, four of the MLP's; a
        copy of the width in float32, and the pooled states of all layers shared out among eight tokens, for prompts are
        longer; the keys and values of every layer, for generating.
        """
        inside = (8 * self.width + 4 * self.mlp_width) * self.item_bytes
        pooled = 4 * self.width * (1 + self.layers // 8)
        cache = 2 * self.layers * self.key_value_width * self.item_bytes
        return inside + pooled + cache


def auto_batch_tokens(shape: ModelShape, free_bytes: int | None, most: int = MOST_BATCH_TOKENS) -> int:
    """The tokens of a batch that the memory allows.

    Args:
        shape: of the model, which is loaded already.
        free_bytes: what is free on the GPU; None = on the CPU, where larger batches do not pay.
        most: what more than that would not speed up; a multiple of 512.

    Returns:
        A multiple of 512 within 512 ... `most`.
    """
    if free_bytes is None:
        return CPU_BATCH_TOKENS
    fitting = int(_MEMORY_SHARE * free_bytes) // shape.token_bytes
    return max(LEAST_BATCH_TOKENS, min(most, fitting // LEAST_BATCH_TOKENS * LEAST_BATCH_TOKENS))
