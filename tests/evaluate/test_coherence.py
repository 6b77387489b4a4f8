from __future__ import annotations

import pytest

from jobs.evaluate.coherence import (
    coherent_share,
    collect_words,
    count_words,
    find_loops,
    measure_coherence,
    split_words,
    whole_word_tokens,
)

KNOWN = collect_words(["Take the lamp, don't wait.", "one two three four five six"])


def test_words():
    assert split_words("Don’t PANIC: café_2 o'clock!") == ["don't", "panic", "café", "o'clock"]
    tokens = ["Ġhello", "▁Welt", "ing", "Ġ", "Ġa1", "Ġ1a", "ĠI", "Ġdon't"]
    assert whole_word_tokens(tokens) == {"hello", "welt", "i", "don't"}


@pytest.mark.parametrize(
    ("text", "finished", "share"),
    [
        ("Take the lamp.", True, 1.0),
        ("Take thelamp wiat.", True, 1 / 3),
        ("take the lam", False, 1.0),  # the last word of a cut answer is left out
        ("take xyz lam", False, 1 / 2),  # and no more than that one
        ("take the lam", True, 2 / 3),
        ("take the lamp.", False, 1.0),  # a cut right behind a sentence leaves a whole word
        ("", True, 0.0),
        ("12 34!", True, 0.0),
        # The runs that end at words 4 and 5 are new; from the sixth word on they come again.
        ("one two one two one two one two one two.", True, 5 / 10),
    ],
)
def test_share_by_hand(text, finished, share):
    assert coherent_share([count_words(text, finished, KNOWN)]) == pytest.approx(share)


def test_loops_by_hand():
    assert find_loops(["the", "the", "the", "the", "the", "the"]) == [False] * 4 + [True] * 2
    # one two one two | one: "two one two one" is new; two: "one two one two" was there.
    assert find_loops(["one", "two"] * 4) == [False] * 5 + [True] * 3
    assert not any(find_loops(["one", "two", "three", "four", "five", "six", "one", "two", "three", "five"]))


def test_share_is_pooled_over_words():
    assert count_words("take the lamp", True, KNOWN) == (3, 3)
    assert coherent_share([(3, 3), (0, 1)]) == pytest.approx(3 / 4)
    assert coherent_share([]) is None
    # Empty answers weigh as one unknown word each, so a model that falls silent does not look coherent.
    assert count_words("", True, KNOWN) == count_words("", False, KNOWN) == (0, 1)
    assert coherent_share([(3, 3), (0, 1), (0, 1)]) == pytest.approx(3 / 5)
    assert count_words("lam", False, KNOWN) == (0, 0)
    assert coherent_share([(0, 0)]) is None


def test_both_models_are_compared_on_one_definition():
    answers = {"base": [("take the lamp", True)], "tuned": [("xyz", True)]}
    found = measure_coherence(answers, [True], KNOWN, "its own words")
    assert found.relative is not None
    assert (found.relative.value, found.relative.low) == (0.0, None)
    assert (found.n, found.base, found.tuned) == (1, 1.0, 0.0)
    assert "its own words" in found.definition
