"""Batches of sequences of unequal length: sorted, so that little is padding, and bounded in tokens."""

from __future__ import annotations

from collections.abc import Sequence


def token_budget_batches(lengths: Sequence[int], budget: int, max_rows: int | None = None) -> list[list[int]]:
    """Group sequences of similar length.

    Args:
        lengths: tokens of each sequence [N].
        budget: most tokens in a batch, padding included; a longer sequence gets a batch of its own.
        max_rows: most sequences in a batch.

    Returns:
        Indices 0 ... N - 1, each once, longest first, so that a batch too large for the memory shows at the start.
    """
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
