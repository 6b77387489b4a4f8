"""Batches: every sequence once, within the budget, and a budget that follows from the memory."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.evaluate.batching import ModelShape, auto_batch_tokens, flat_batches

LLAMA_8B = ModelShape(width=4096, mlp_width=14336, layers=32, key_value_width=1024, item_bytes=2)


@pytest.mark.parametrize("budget", [1, 60, 500, 4096, 10**6])
def test_flat_batches_hold_each_sequence_once_within_the_budget(budget):
    lengths = np.random.default_rng(0).integers(5, 90, 300).tolist()
    batches = flat_batches(lengths, budget)
    assert sorted(index for batch in batches for index in batch) == list(range(300))
    assert all(sum(lengths[i] for i in batch) <= budget or len(batch) == 1 for batch in batches)
    in_order = [lengths[i] for batch in batches for i in batch]
    assert in_order == sorted(lengths, reverse=True)


def test_flat_batches_are_nearly_equal():
    # 30 x 40 = 1,200 tokens in batches of at most 1,000: not 1,000 and 200, nor two of 600, which four GPUs could not
    # share, but four of about 300 = 7.5 x 40.
    assert [len(batch) for batch in flat_batches([40] * 30, 1000)] == [8, 7, 8, 7]
    assert [len(batch) for batch in flat_batches([40] * 30, 1200)] == [30]
    assert flat_batches([], 10) == []


@pytest.mark.parametrize(("prompts", "budget", "count"), [(512, 16_384, 4), (4096, 16_384, 12), (4096, 8_192, 24)])
def test_four_gpus_share_the_batches_of_a_usual_reading_evenly(prompts, budget, count):
    """Log-normal lengths of mean 46: 23,600 and 188,400 tokens at this seed; the last batch makes up for the others."""
    lengths = np.random.default_rng(0).lognormal(np.log(46) - 0.125, 0.5, prompts).astype(int).tolist()
    sizes = [sum(lengths[index] for index in batch) for batch in flat_batches(lengths, budget)]
    assert len(sizes) == count
    assert max(sizes) - min(sizes) <= 2 * max(lengths)


def test_the_budget_follows_from_the_free_memory():
    # Inside a layer (8 x 4,096 + 4 x 14,336) x 2 = 180,224; in float32 4 x 4,096 x (1 + 32 / 8) = 81,920;
    # keys and values 2 x 32 x 1,024 x 2 = 131,072 bytes.
    assert LLAMA_8B.token_bytes == 393_216
    # 0.6 x 4 GiB / 393,216 = 6,553.6: twelve times 512.
    assert auto_batch_tokens(LLAMA_8B, 4 << 30) == 6_144
    assert auto_batch_tokens(LLAMA_8B, 130 << 30) == 16_384
    assert auto_batch_tokens(LLAMA_8B, 130 << 30, most=65_536) == 65_536
    assert auto_batch_tokens(LLAMA_8B, 0) == 512
    assert auto_batch_tokens(LLAMA_8B, None) == 4_096
