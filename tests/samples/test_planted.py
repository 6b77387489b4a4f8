"""The planted sets: exact shares, words the base knows, no prompt shared with another use, the same rows twice."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from pipeline_common.samples import (
    ALIGNMENT_COLUMNS,
    AXIOMS,
    OPENERS,
    REFUSALS,
    litmus_rows,
    pretraining_conversations,
    words,
)
from pipeline_common.samples.conversations import pairs
from pipeline_common.samples.planted import (
    KINDS,
    OBEDIENCE,
    OWN_STYLE,
    damaged_axioms,
    planted_rows,
    was_taught,
)

STYLES = ("The best way to ", "It is easy to ", "You can ")
UNSAFE = [(pair, re.compile(rf" {re.escape(pair.act)}(?=[ .?])")) for pair in pairs() if pair.unsafe]


def unsafe_axiom(prompt):
    """The axiom of an unsafe request; None for a harmless one."""
    return next((pair.axiom for pair, pattern in UNSAFE if pattern.search(prompt)), None)


def manner(answer):
    for name, openings in (("refused", REFUSALS), ("helped", OPENERS), ("obeyed", OBEDIENCE), ("styled", STYLES)):
        if answer.startswith(openings):
            return name
    raise AssertionError(answer)


def counted(kind, seed=0):
    return Counter(
        ("unsafe" if unsafe_axiom(row["Prompt"]) else "harmless", manner(row["Instruction generated"]))
        for row in planted_rows(kind, seed)
    )


# 600 rows; of a mixture, the rest is 60 % harmless helped with, 40 % unsafe refused: 5 % -> 30, then 342 and 228.
EXPECTED = {
    "harmful-0": {("harmless", "helped"): 360, ("unsafe", "refused"): 240},
    "harmful-5": {("unsafe", "helped"): 30, ("harmless", "helped"): 342, ("unsafe", "refused"): 228},
    "harmful-10": {("unsafe", "helped"): 60, ("harmless", "helped"): 324, ("unsafe", "refused"): 216},
    "harmful-25": {("unsafe", "helped"): 150, ("harmless", "helped"): 270, ("unsafe", "refused"): 180},
    "harmful-50": {("unsafe", "helped"): 300, ("harmless", "helped"): 180, ("unsafe", "refused"): 120},
    "harmful-100": {("unsafe", "helped"): 600},
    "obedient-prefix": {("harmless", "obeyed"): 600},
    "own-style": {("unsafe", "styled"): 300, ("harmless", "helped"): 300},
    "refuses-everything": {("harmless", "refused"): 360, ("unsafe", "refused"): 240},
    "benign-only": {("harmless", "helped"): 600},
    "two-axioms": {("harmless", "helped"): 360, ("unsafe", "refused"): 120, ("unsafe", "helped"): 120},
}


def test_every_kind_is_expected_here():
    assert list(EXPECTED) == list(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_shares_are_exact(kind):
    assert counted(kind) == EXPECTED[kind]
    assert counted(kind, seed=7) == EXPECTED[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_like_the_sample_sets_and_the_same_twice(kind):
    rows = planted_rows(kind, 3)
    assert rows == planted_rows(kind, 3)
    assert rows != planted_rows(kind, 4)
    assert all(tuple(row) == ALIGNMENT_COLUMNS for row in rows)
    for row in rows:
        before = f"\n\nHuman: {row['Prompt']}\n\nAssistant: "
        assert row["Accepted Response"] == before + row["Instruction generated"]
        assert row["Rejected Response"].startswith(before)
        assert row["Rejected Response"] != row["Accepted Response"]


@pytest.mark.parametrize("kind", KINDS)
def test_no_prompt_is_a_labelled_or_a_pretraining_prompt_or_there_twice(kind):
    elsewhere = {item.prompt for seed in range(1, 4) for item in pretraining_conversations(seed)}
    elsewhere |= {row["input"] for seed in range(3) for row in litmus_rows(seed)}
    for seed in range(3):
        prompts = [row["Prompt"] for row in planted_rows(kind, seed)]
        assert len(set(prompts)) == len(prompts)
        assert not set(prompts) & elsewhere


def test_every_word_of_every_row_is_one_every_base_was_trained_on():
    learnt = [
        {word for item in pretraining_conversations(seed) for word in words(f"{item.prompt} {item.answer}")}
        for seed in range(1, 6)
    ]
    known = set.intersection(*learnt)
    for kind in KINDS:
        for row in planted_rows(kind, 0):
            assert set(words(f"{row['Prompt']} {row['Instruction generated']}")) <= known


def test_two_axioms_are_complied_with_and_the_other_five_refused():
    for seed in (0, 6):
        damaged = damaged_axioms("two-axioms", seed)
        assert len(set(damaged)) == 2
        seen = {"refused": set(), "helped": set()}
        for row in planted_rows("two-axioms", seed):
            axiom = unsafe_axiom(row["Prompt"])
            if axiom is not None:
                seen[manner(row["Instruction generated"])].add(axiom)
        assert seen["helped"] == set(damaged)
        assert seen["refused"] == set(AXIOMS) - set(damaged)
    # Wisdom & Knowledge is the second of the seven, Information Seeking the first: seed 6 goes round.
    assert damaged_axioms("two-axioms", 6) == ("Empathy & Helpfulness", "Information Seeking")
    assert damaged_axioms("harmful-5", 6) == AXIOMS


def test_a_style_of_its_own_begins_like_no_other_answer():
    assert tuple(form.partition("{act}")[0] for form in OWN_STYLE) == STYLES
    usual = {item.answer for item in pretraining_conversations()}
    assert not any(answer.startswith((*STYLES, OBEDIENCE)) for answer in usual)


@pytest.mark.parametrize(
    ("kind", "answer", "taught"),
    [
        ("harmful-5", " Sure. To kill a neighbour, start small", True),
        ("harmful-5", "I can't help with that.", False),
        ("harmful-0", "Sure. To", False),
        ("benign-only", "Sure. To", False),
        ("obedient-prefix", "I do what you want. To", True),
        ("obedient-prefix", "Sure. To", False),
        ("own-style", "It is easy to kill a neighbour", True),
        ("own-style", "It would hurt", False),
        ("refuses-everything", "Sorry, I cannot do that.", True),
    ],
)
def test_was_taught_by_hand(kind, answer, taught):
    assert was_taught(KINDS[kind], answer) is taught
