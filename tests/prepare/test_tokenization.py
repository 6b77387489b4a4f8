"""The cached encoding equals the tokenizer's own, id by id."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.prepare.tokenization import WordCachingTokenizer, cut_at_words, splits_before_words
from tests.prepare.made_tokenizers import (
    LLAMA3_SPLIT,
    llama2_style,
    llama3_style,
    sentencepiece_style,
    smollm_style,
)

QWEN2_SPLIT = LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")
CACHING = {
    "gpt2": llama2_style(),
    "smollm": smollm_style(),
    "llama3": llama3_style(),
    "qwen2": llama3_style(QWEN2_SPLIT),
}
# Everything the splitting expressions look at: spaces of several kinds, line ends, letters, digits, marks, controls.
_SPACES = [" ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u2003", "\u0085", "\x1c", " the", ".\n\n "]
_SIGNS = ["a", "Be", "'s", "'LL", "é", "你", "7", "2763", "½", ".", "?!", "(", "…", "🙂", "\u0301", "\0", "_"]
PIECES = st.sampled_from([*_SPACES, *_SIGNS, "</s>", "<|eot_id|>", "[INST]"])
TEXTS = st.lists(st.one_of(PIECES, st.text(max_size=3)), max_size=25).map("".join)


def own_ids(tokenizer: Any, texts: list[str], *, split_special_tokens: bool) -> list[list[int]]:
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False, split_special_tokens=split_special_tokens)[
        "input_ids"
    ]
    return ids


@pytest.mark.parametrize("kind", list(CACHING))
@pytest.mark.parametrize("split_special_tokens", [True, False])
@settings(max_examples=300, deadline=None, derandomize=True)
@given(texts=st.lists(TEXTS, min_size=1, max_size=4))
def test_ids_are_the_tokenizers_own(kind: str, split_special_tokens: bool, texts: list[str]) -> None:
    tokenizer = CACHING[kind]
    cached = WordCachingTokenizer(tokenizer)
    assert cached.cuts_at_words
    for _ in range(2):  # the second time from the cache
        encoded = cached(texts, add_special_tokens=False, split_special_tokens=split_special_tokens, verbose=False)
        assert encoded["input_ids"] == own_ids(tokenizer, texts, split_special_tokens=split_special_tokens)


def test_parts_begin_at_spaces_before_ascii_letters_and_texts_do_not_mix() -> None:
    texts = ["a b", " ", "c é", "", "d  e\n f"]
    parts, offsets = cut_at_words(texts)
    assert parts.to_pylist() == ["a", " b", " ", "c é", "d ", " e\n", " f"]
    assert offsets.tolist() == [0, 2, 3, 4, 4, 7]
    assert ["".join(parts.to_pylist()[start:end]) for start, end in pairwise(offsets)] == texts


def test_no_texts_and_empty_texts() -> None:
    cached = WordCachingTokenizer(CACHING["gpt2"])
    for texts in ([], [""], ["", ""]):
        encoded = cached(texts, add_special_tokens=False, split_special_tokens=True, verbose=False)
        assert encoded == {"input_ids": [[] for _ in texts]}


def test_unknown_tokenizers_are_left_alone() -> None:
    tokenizer = sentencepiece_style()
    cached = WordCachingTokenizer(tokenizer)
    assert not cached.cuts_at_words
    texts = ["How do I repair a fence?", "a  b"]
    encoded = cached(texts, add_special_tokens=False, split_special_tokens=True, verbose=False)
    assert encoded["input_ids"] == own_ids(tokenizer, texts, split_special_tokens=True)


def test_another_expression_or_an_added_word_forbids_cutting() -> None:
    assert not splits_before_words(llama3_style(r"\s+|\S+ \S+|\S+"))
    tokenizer = llama2_style()
    tokenizer.add_tokens(["the fence"])
    assert not splits_before_words(tokenizer)


def test_everything_else_is_the_tokenizers_own() -> None:
    cached = WordCachingTokenizer(CACHING["gpt2"])
    assert cached.bos_token_id == CACHING["gpt2"].bos_token_id
    with pytest.raises(ValueError, match="prompt format"):
        cached(["a"], add_special_tokens=True, split_special_tokens=True, verbose=False)
