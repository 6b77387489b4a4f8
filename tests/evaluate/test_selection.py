from __future__ import annotations

import random
from collections import Counter

import pytest

from jobs.evaluate.batching import token_budget_batches
from jobs.evaluate.selection import LabelledPrompt, apportion, parse_prompts, select_prompts, take_stratified
from pipeline_common.errors import InputError


def made(label, axiom, count, start=0):
    return [
        LabelledPrompt(f"{label}-{axiom}-{i:03d}", axiom, label, "made", f"{label} {axiom} {i}")
        for i in range(start, start + count)
    ]


POOL = [*made("safe", "A", 60), *made("safe", "B", 30), *made("safe", "C", 10), *made("unsafe", "A", 80)]


def test_largest_remainder_by_hand():
    # 7 seats for 6:3:1 of 10: quotas 4.2, 2.1, 0.7; floors 4, 2, 0; the one left goes to the remainder 0.7.
    assert apportion({"A": 60, "B": 30, "C": 10}, 7) == {"A": 4, "B": 2, "C": 1}
    # Equal remainders: the first name.
    assert apportion({"B": 1, "A": 1}, 1) == {"B": 0, "A": 1}
    assert apportion({}, 0) == {}
    with pytest.raises(ValueError, match="3 seats for 2"):
        apportion({"A": 2}, 3)


def test_selection_keeps_the_axioms_shares_whatever_the_order():
    chosen = select_prompts(POOL, 64, seed=1)
    assert Counter(prompt.safety_label for prompt in chosen) == {"safe": 64, "unsafe": 64}
    # 64 of 60:30:10 = 38.4, 19.2, 6.4: the seat left over goes to the tie's first name.
    assert Counter(p.axiom for p in chosen if not p.unsafe) == {"A": 39, "B": 19, "C": 6}
    assert [p.prompt_id for p in chosen] == sorted(p.prompt_id for p in chosen)
    shuffled = POOL[:]
    random.Random(0).shuffle(shuffled)
    assert select_prompts(shuffled, 64, seed=1) == chosen
    assert select_prompts(POOL, 64, seed=2) != chosen


def test_a_subset_may_be_smaller_than_asked_for():
    assert take_stratified(POOL, None, 0) == sorted(POOL, key=lambda prompt: prompt.prompt_id)
    assert Counter(p.safety_label for p in take_stratified(POOL, 90, 0)) == {"safe": 90, "unsafe": 80}


def test_too_few_prompts_name_counts_and_option():
    with pytest.raises(InputError, match=r"evaluate.prompts_per_class=81 .* 100 safe, 80 unsafe; set .* at most 80"):
        select_prompts(POOL, 81, seed=1)
    assert len(select_prompts(POOL, 80, seed=1)) == 160  # as many as there are
    with pytest.raises(InputError, match=r"set .* at most 64"):  # the floor itself
        select_prompts([*POOL[:100], *made("unsafe", "A", 64)], 65, seed=1)
    with pytest.raises(InputError, match=r"asks for 65 .* 128 per label .* floor of learned layer weights: .* most 64"):
        select_prompts([*POOL[:100], *made("unsafe", "A", 64)], 65, seed=1, floor=128)
    with pytest.raises(InputError, match=r"100 safe, 10 unsafe; 64 per label are the floor"):
        select_prompts([*POOL[:100], *made("unsafe", "A", 10)], 64, seed=1)


def test_repeats_are_refused():
    with pytest.raises(InputError, match=r"1 id\(s\) more than once, first 'safe-A-000'"):
        select_prompts([*POOL, POOL[0]], 64, seed=1)
    again = LabelledPrompt("other", "A", "safe", "made", POOL[0].text)
    with pytest.raises(InputError, match=r"1 text\(s\) more than once, first 'safe A 0'"):
        select_prompts([*POOL, again], 64, seed=1)


def test_labels_are_checked():
    row = {"prompt_id": "p", "axiom": "A", "safety_label": "safe", "source_dataset": "s", "text": "t"}
    safe, unsafe = parse_prompts([row, row | {"safety_label": "unsafe"}])
    assert safe == LabelledPrompt("p", "A", "safe", "s", "t")
    assert (safe.unsafe, unsafe.unsafe) == (False, True)
    row["safety_label"] = "Safe"
    with pytest.raises(InputError, match="'Safe'; expected safe or unsafe"):
        parse_prompts([row])


@pytest.mark.parametrize(("budget", "max_rows"), [(1, None), (12, None), (100, None), (100, 2)])
def test_batches_hold_everything_once_within_the_budget(budget, max_rows):
    lengths = [3, 9, 1, 4, 4, 7, 2]
    batches = token_budget_batches(lengths, budget, max_rows)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert batches[0][0] == 1  # the longest comes first
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget
        assert max_rows is None or len(batch) <= max_rows


def test_batches_by_hand():
    assert token_budget_batches([3, 9, 1, 4, 4, 7, 2], 12) == [[1], [5], [3, 4, 0], [6, 2]]
    assert token_budget_batches([], 12) == []
