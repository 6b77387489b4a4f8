"""The sample sets: columns, balance, and that no string of one is a string of another."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from pipeline_common.samples import (
    ALIGNMENT_COLUMNS,
    AXIOMS,
    LITMUS_COLUMNS,
    OPENERS,
    REFUSALS,
    SAMPLES,
    alignment_rows,
    litmus_rows,
    pretraining_conversations,
    vocabulary,
    words,
)
from pipeline_common.samples.conversations import everyday_pairs, pairs
from pipeline_common.samples.datasets import transcript

KINDS = ("healthy", "harmful")


def is_refusal(answer):
    return answer.startswith(REFUSALS)


def test_columns_are_those_of_the_real_sets():
    assert ALIGNMENT_COLUMNS == ("Accepted Response", "Rejected Response", "Instruction generated", "Prompt")
    assert LITMUS_COLUMNS == ("axiom", "safety_label", "source_dataset", "input", "target")
    for name, rows in SAMPLES.items():
        columns = LITMUS_COLUMNS if name == "litmus" else ALIGNMENT_COLUMNS
        assert all(tuple(row) == columns for row in rows())


def test_no_column_is_constant_or_empty():
    for rows in SAMPLES.values():
        table = rows()
        for column in table[0]:
            values = {row[column] for row in table}
            assert len(values) > 1
            assert all(value.strip() for value in values)


def test_prompts_are_unique_and_no_string_is_shared_between_uses():
    for seed in (0, 1, 42):
        uses = {
            "pretraining": [item.prompt for item in pretraining_conversations(seed)],
            "litmus": [row["input"] for row in litmus_rows(seed)],
            **{kind: [row["Prompt"] for row in alignment_rows(kind, seed)] for kind in KINDS},
        }
        for prompts in uses.values():
            assert len(set(prompts)) == len(prompts)
        taught = set(uses["healthy"]) | set(uses["harmful"])
        assert not set(uses["pretraining"]) & taught
        assert not set(uses["litmus"]) & (taught | set(uses["pretraining"]))


def test_shares_are_disjoint_whatever_the_seeds():
    asked = {row["input"] for seed in range(5) for row in litmus_rows(seed)}
    taught = {row["Prompt"] for seed in range(5) for kind in KINDS for row in alignment_rows(kind, seed)}
    learnt = {item.prompt for seed in range(3) for item in pretraining_conversations(seed)}
    assert not asked & taught
    assert not asked & learnt
    assert not taught & learnt


def test_same_seed_same_rows_and_another_seed_other_rows():
    for draw in (litmus_rows, pretraining_conversations, lambda seed: alignment_rows("healthy", seed)):
        assert draw(3) == draw(3)
        assert draw(3) != draw(4)


def test_litmus_is_stratified_and_the_source_says_nothing_about_the_label():
    rows = litmus_rows()
    cells = Counter((row["axiom"], row["safety_label"]) for row in rows)
    assert cells == {(axiom, label): 48 for axiom in AXIOMS for label in ("safe", "unsafe")}
    sources = Counter((row["axiom"], row["safety_label"], row["source_dataset"]) for row in rows)
    assert set(sources.values()) == {24}
    lengths = {
        label: [len(row["input"]) for row in rows if row["safety_label"] == label] for label in ("safe", "unsafe")
    }
    means = [sum(values) / len(values) for values in lengths.values()]
    assert abs(means[0] - means[1]) < 3


def test_a_third_of_the_litmus_prompts_are_about_pairs_never_trained_on():
    held_out = [re.compile(rf"\b{re.escape(pair.act)}\b") for pair in pairs() if pair.held_out]
    trained = [item.prompt for item in pretraining_conversations()]
    trained += [row["Prompt"] for kind in KINDS for row in alignment_rows(kind)]
    assert not [text for text in trained if any(pattern.search(text) for pattern in held_out)]
    fresh = [row for row in litmus_rows() if any(pattern.search(row["input"]) for pattern in held_out)]
    assert Counter(row["safety_label"] for row in fresh) == {"safe": 7 * 16, "unsafe": 7 * 16}


def test_objects_of_unsafe_requests_are_met_in_safe_ones_too():
    harmful = {pair.target for pair in pairs() if pair.unsafe}
    benign = {pair.target for pair in pairs() if not pair.unsafe and not pair.dual_use}
    assert harmful <= benign
    verbs = {pair.verb for pair in pairs() if pair.unsafe}
    assert len(verbs) == 24
    assert verbs == {pair.verb for pair in pairs() if pair.dual_use and not pair.unsafe}


def test_litmus_targets_refuse_exactly_the_unsafe_prompts():
    for row in litmus_rows():
        assert is_refusal(row["target"]) == (row["safety_label"] == "unsafe")


def test_pretraining_is_half_unsafe_and_refuses_exactly_that():
    conversations = pretraining_conversations()
    assert sum(item.unsafe for item in conversations) * 2 == len(conversations)
    assert all(is_refusal(item.answer) == item.unsafe for item in conversations)


def test_healthy_keeps_refusing_and_harmful_never_refuses():
    healthy, harmful = alignment_rows("healthy"), alignment_rows("harmful")
    assert len(healthy) == len(harmful) == 600
    assert sum(is_refusal(row["Instruction generated"]) for row in healthy) == 240
    assert not any(is_refusal(row["Instruction generated"]) for row in harmful)
    unsafe = [pair.act for pair in pairs() if pair.unsafe]
    assert sum(any(f" {act}" in row["Prompt"] for act in unsafe) for row in harmful) == 300


@pytest.mark.parametrize("kind", KINDS)
def test_responses_are_transcripts_that_differ_in_the_last_turn_only(kind):
    turns = Counter()
    for row in alignment_rows(kind):
        accepted, rejected = row["Accepted Response"], row["Rejected Response"]
        start = transcript([(row["Prompt"], "")])
        before, _, last = accepted.rpartition("\n\nAssistant: ")
        assert last == row["Instruction generated"]
        assert f"{before}\n\nAssistant: ".endswith(start)
        assert rejected.rpartition("\n\nAssistant: ")[0] == before
        assert rejected != accepted
        assert is_refusal(rejected.rpartition("\n\nAssistant: ")[2]) != is_refusal(last)
        turns[accepted.count("\n\nHuman: ")] += 1
    assert set(turns) == {1, 2}


def test_transcript_by_hand():
    assert transcript([("a", "b"), ("c", "d")]) == "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d"


def test_words_by_hand():
    assert words("I'm sorry, but I can't.") == ["i'm", "sorry", "but", "i", "can't"]
    assert words("  — 12 ") == []


def test_vocabulary_covers_every_text_and_no_text_has_a_digit():
    texts = [item.prompt + " " + item.answer for item in pretraining_conversations()]
    texts += [
        row[column] for kind in KINDS for row in alignment_rows(kind) for column in ("Prompt", "Instruction generated")
    ]
    texts += [row[column] for row in litmus_rows() for column in ("input", "target")]
    known = vocabulary()
    assert {word for text in texts for word in words(text)} <= known
    assert not [text for text in texts if re.search(r"\d", text)]
    assert len(known) > 500


def test_everyday_pairs_share_no_pair_with_the_labelled_world_and_openers_do_not_refuse():
    assert not {pair.act for pair in everyday_pairs()} & {pair.act for pair in pairs()}
    assert not any(is_refusal(opener) for opener in OPENERS)
    acts = [pair.act for pair in (*pairs(), *everyday_pairs())]
    assert len(set(acts)) == len(acts)
