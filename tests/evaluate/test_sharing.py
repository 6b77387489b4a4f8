"""Batches are dealt out whole: each to one, nobody with more than a batch too much, the same in every process."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from jobs.evaluate.batching import flat_batches, token_budget_batches
from jobs.evaluate.sharing import Batch, Share, deal, list_batches, share_of


def made_batches(costs: list[int]) -> list[Batch]:
    return [Batch("read", "base", (place,), cost) for place, cost in enumerate(costs)]


@pytest.mark.parametrize("shards", [1, 2, 3, 7, 20])
def test_every_batch_has_one_owner_and_loads_differ_by_a_batch_at_most(shards):
    costs = np.random.default_rng(shards).integers(1, 100, 15).tolist()
    batches = made_batches(costs)
    shares = deal(batches, shards)
    assert len(shares) == shards
    assert Counter(batch for share in shares for batch in share) == Counter(batches)
    loads = [sum(batch.cost for batch in share) for share in shares]
    assert max(loads) - min(loads) <= max(costs)
    assert all([batch.rows for batch in share] == sorted(batch.rows for batch in share) for share in shares)


def test_the_costliest_go_first_to_whom_has_least():
    # 9 -> 0; 8 -> 1; 5 -> 1 (8 < 9); 4 -> 0 (9 < 13); 4 -> 0 (13 = 13, the first)
    shares = deal(made_batches([4, 9, 5, 8, 4]), 2)
    assert [[batch.cost for batch in share] for share in shares] == [[4, 9, 4], [5, 8]]


@pytest.mark.parametrize("shards", [2, 4])
def test_nobody_gets_more_of_the_slower_role_than_others(shards):
    costs = [8_190 - place for place in range(12)]
    batches = list_batches("read", ["base", "tuned"], costs, lambda sizes: [[place] for place in range(len(sizes))])
    for share in deal(batches, shards):
        assert Counter(batch.role for batch in share) == {"base": 12 // shards, "tuned": 12 // shards}


def test_tasks_of_costlier_batches_are_dealt_first():
    # 3 -> 0 and 3 -> 1 of the second task; then 2 -> 0, 2 -> 1 of the first
    batches = [Batch(task, "base", (place,), cost) for task, cost in (("a", 2), ("b", 3)) for place in range(2)]
    assert [[(one.task, one.rows[0]) for one in share] for share in deal(batches, 2)] == [
        [("a", 0), ("b", 0)],
        [("a", 1), ("b", 1)],
    ]


def test_a_share_is_its_batches_end_to_end():
    batches = [*list_batches("read", ["base", "tuned"], [3, 1, 2], lambda _: [[0], [2, 1]]), *made_batches([5])]
    assert [(batch.role, batch.rows, batch.cost) for batch in batches[:4]] == [
        ("base", (0,), 3),
        ("base", (2, 1), 3),
        ("tuned", (0,), 3),
        ("tuned", (2, 1), 3),
    ]
    assert share_of(batches[:4], "read", "tuned") == Share((0, 2, 1), (1, 2))
    assert share_of(batches, "answer", "tuned") == Share((), ())


@pytest.mark.parametrize("group", [token_budget_batches, flat_batches])
def test_a_shares_batches_are_those_of_all(group):
    """What a process forms from its share, with its rows end to end, are exactly the batches that were dealt to it."""
    lengths = np.random.default_rng(0).integers(3, 60, 200).tolist()
    batches = list_batches("read", ["base"], lengths, lambda sizes: group(sizes, 250))
    assert len(batches) > 20
    for own in deal(batches, 3):
        share = share_of(own, "read", "base")
        formed = group([lengths[row] for row in share.rows], 250, within=share.sizes)
        assert [tuple(share.rows[place] for place in places) for places in formed] == [batch.rows for batch in own]


def test_a_process_with_less_memory_splits_a_batch_and_never_joins_two():
    formed = token_budget_batches([4, 4, 4, 2, 2], 8, within=[3, 2])
    assert formed == [[0, 1], [2], [3, 4]]
