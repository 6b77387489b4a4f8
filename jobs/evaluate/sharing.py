"""Who reads what: batches are formed once over all prompts and dealt out whole. Pure.

A batch's numbers depend on what lies beside each other in it, by the rounding of other tensor shapes. As every batch
is the same whatever process runs it, so are its results: on the CPU to the bit, on GPUs of one kind as far as their
kernels repeat themselves. Splitting the prompts first, and batching each part by itself, would change roundings with
the number of processes, and once in a while an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

ROLES: Final = ("base", "tuned")
"""Both models of a pair, in the order in which they are read."""


@dataclass(frozen=True)
class Shard:
    """One process of an evaluation."""

    index: int = 0
    """0 ... count - 1; those of machine m are m * gpus ... (m + 1) * gpus - 1."""
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the one that merges."""
        return self.index == 0


@dataclass(frozen=True)
class Batch:
    """What goes through a model at once."""

    task: str
    """What is done with it."""
    role: str
    """Which model: in `ROLES`, or the judge."""
    rows: tuple[int, ...]
    """Places of its sequences, in their order in the batch."""
    cost: int
    """Tokens, padding not counted."""


@dataclass(frozen=True)
class Share:
    """A role's batches of one process, laid end to end."""

    rows: tuple[int, ...]
    sizes: tuple[int, ...]
    """Sequences of each batch; they sum to the number of `rows`."""


ALONE = Shard()


def list_batches(
    task: str,
    roles: Iterable[str],
    lengths: Sequence[int],
    group: Callable[[Sequence[int]], Sequence[Sequence[int]]],
) -> list[Batch]:
    """The same batches for each role.

    Args:
        task: what is done with them.
        roles: who reads the sequences.
        lengths: tokens of each sequence [N].
        group: lengths -> places of each batch.
    """
    groups = group(lengths)
    return [Batch(task, role, tuple(rows), sum(lengths[row] for row in rows)) for role in roles for rows in groups]


def deal(batches: Sequence[Batch], shards: int) -> list[list[Batch]]:
    """Share batches out, each to whom has least so far (ties: the first), a task's and a role's costliest first.

    One role after the other, for a token of one may take longer than one of the other: sorted together, equal batches
    of two roles would take turns, and some shards could get nothing but the slower role's.

    Args:
        batches: in any order that every process agrees on.
        shards: how many share them.

    Returns:
        Each shard's batches, in the order of `batches`; a shard may have none.
    """
    loads = [0] * shards
    owners: dict[int, int] = {}
    costliest: dict[str, int] = {}
    first: dict[tuple[str, str], int] = {}
    for place, batch in enumerate(batches):
        costliest[batch.task] = max(batch.cost, costliest.get(batch.task, 0))
        first.setdefault((batch.task, batch.role), place)

    def turn(place: int) -> tuple[int, int, int, int]:
        batch = batches[place]
        return -costliest[batch.task], first[batch.task, batch.role], -batch.cost, place

    for place in sorted(range(len(batches)), key=turn):
        owners[place] = min(range(shards), key=lambda shard: (loads[shard], shard))
        loads[owners[place]] += batches[place].cost
    return [[batch for place, batch in enumerate(batches) if owners[place] == shard] for shard in range(shards)]


def share_of(batches: Sequence[Batch], task: str, role: str) -> Share:
    """A task's and role's part of a process's batches."""
    own = [batch for batch in batches if (batch.task, batch.role) == (task, role)]
    return Share(tuple(row for batch in own for row in batch.rows), tuple(len(batch.rows) for batch in own))
