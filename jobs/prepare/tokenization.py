r"""The model's tokenizer, made fast for much text without changing one id: each distinct word is encoded once.

A byte-level BPE splits text by a regular expression before it merges anything, and merges never cross a split. The
expressions of GPT-2, Llama 3 and Qwen 2 always split in front of a space that an ASCII letter follows: no alternative
takes a space in its middle or at its end except runs of whitespace, and `\s+(?!\S)` gives the last space of a run back
when a letter follows. The text on the left is split the same way when it ends there, because the run of whitespace it
may end with is the same run without that one space. So encode(text) is the concatenation of encode(part) over the
parts that begin at such spaces, and words repeat. For any other tokenizer nothing is cut and nothing is cached.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_LLAMA3: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2: Final = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_KNOWN_SPLITS: Final = frozenset({_LLAMA3, _QWEN2})
_CACHED_IDS: Final = 8_000_000  # 32 MB of ids; then the cache starts anew
_SPACE: Final = ord(" ")

Ids = npt.NDArray[np.int32]


class WordCachingTokenizer:
    """A tokenizer that answers for another one, from a cache of encoded words where that is exact.

    It can be handed to `pipeline_common.prompts` in place of the tokenizer itself.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.cuts_at_words = splits_before_words(tokenizer)
        self._caches: dict[bool, _WordCache] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(
        self, texts: Sequence[str], *, add_special_tokens: bool, split_special_tokens: bool, verbose: bool
    ) -> dict[str, list[list[int]]]:
        """Ids of each text, as the tokenizer itself gives them; special tokens are never added.

        Args:
            texts: B texts.
            add_special_tokens: must be False.
            split_special_tokens: True = the name of a special token inside a text is only text.
            verbose: passed on.

        Returns:
            {"input_ids": B lists of ids}.
        """
        if add_special_tokens:
            raise ValueError("special tokens are added by the prompt format, not by the tokenizer")

        def encode(parts: Sequence[str]) -> list[list[int]]:
            encoded = self._tokenizer(
                list(parts), add_special_tokens=False, split_special_tokens=split_special_tokens, verbose=verbose
            )
            ids: list[list[int]] = encoded["input_ids"]
            return ids

        if not self.cuts_at_words:
            return {"input_ids": encode(texts)}
        cache = self._caches.setdefault(split_special_tokens, _WordCache())
        return {"input_ids": cache.encode(texts, encode)}


def splits_before_words(tokenizer: Any) -> bool:
    """Whether this tokenizer is known to split in front of every space that an ASCII letter follows."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return False
    description = json.loads(backend.to_str())
    model = description["model"]
    added_tokens_are_plain = all(
        token["special"]
        and not (token["lstrip"] or token["rstrip"] or token["single_word"])
        and " " not in token["content"]
        for token in description["added_tokens"]
    )
    return bool(
        description["normalizer"] is None
        and model["type"] == "BPE"
        and not model.get("dropout")
        and added_tokens_are_plain
        and _known_splits(description["pre_tokenizer"])
    )


def _known_splits(pre_tokenizer: dict[str, Any] | None) -> bool:
    if pre_tokenizer is None:
        return False
    steps = pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]
    *before, last = steps
    if last["type"] != "ByteLevel" or last["add_prefix_space"]:
        return False
    kinds = [step["type"] for step in before]
    if last["use_regex"]:  # GPT-2's expression, perhaps after digits were set apart
        return kinds in ([], ["Digits"])
    return (
        kinds == ["Split"]
        and before[0]["pattern"].get("Regex") in _KNOWN_SPLITS
        and before[0]["behavior"] == "Isolated"
        and not before[0]["invert"]
    )


def cut_at_words(texts: Sequence[str]) -> tuple[pa.LargeStringArray, npt.NDArray[np.int64]]:
    """Cut each text in front of every space that an ASCII letter follows.

    Args:
        texts: B texts.

    Returns:
        All parts in order, and B + 1 offsets: text b is the parts [offsets[b], offsets[b + 1]).
    """
    array = pa.array(texts, pa.large_string())
    _, offset_buffer, data = array.buffers()
    ends = np.frombuffer(offset_buffer, dtype=np.int64, count=len(texts) + 1)
    content = np.frombuffer(data, dtype=np.uint8, count=int(ends[-1])) if data is not None else np.zeros(0, np.uint8)
    cuts = np.zeros(len(content) + 1, dtype=np.bool_)
    if len(content):
        # ASCII letters: A-Z become a-z with bit 5 set; bytes below "a" wrap around to large numbers.
        is_letter = ((content[1:] | 0x20) - np.uint8(ord("a"))) < 26
        np.logical_and(content[:-1] == _SPACE, is_letter, out=cuts[:-2])
        # A space that ends one text is not in front of the next one's first letter.
        cuts[ends[1:-1][ends[1:-1] > 0] - 1] = False
    cuts[ends] = True
    places = np.flatnonzero(cuts)
    parts = pa.LargeStringArray.from_buffers(len(places) - 1, pa.py_buffer(places.astype(np.int64)), data)
    return parts, np.searchsorted(places, ends)


class _WordCache:
    """Ids of every part seen so far, in one flat array."""

    def __init__(self) -> None:
        self._forget()

    def encode(self, texts: Sequence[str], encode: Any) -> list[list[int]]:
        parts, offsets = cut_at_words(texts)
        if not len(parts):
            return [[] for _ in texts]
        coded = parts.dictionary_encode()
        slots = self._find(coded.dictionary.to_pylist(), encode)[coded.indices.to_numpy()]
        lengths = self._lengths[slots]
        # 32 bits are enough for the ids of some thousand rows, and these arrays are what takes time here.
        ends = np.zeros(len(lengths) + 1, np.int32)
        np.cumsum(lengths, out=ends[1:])
        # Position of each id in the flat array: its part's start, plus how far into the part it is.
        gather = np.repeat(self._starts[slots] - ends[:-1], lengths)
        gather += np.arange(ends[-1], dtype=np.int32)
        ids = self._ids[gather]
        return [ids[start:end].tolist() for start, end in pairwise(ends[offsets].tolist())]

    def _forget(self) -> None:
        self._slots: dict[str, int] = {}
        self._ids: Ids = np.zeros(0, np.int32)
        self._starts: Ids = np.zeros(0, np.int32)
        self._lengths: Ids = np.zeros(0, np.int32)

    def _find(self, parts: list[str], encode: Any) -> npt.NDArray[np.int64]:
        """The slot of each part; unknown parts are encoded first."""
        if len(self._ids) > _CACHED_IDS:
            self._forget()
        unknown = [part for part in parts if part not in self._slots]
        if unknown:
            encoded = encode(unknown)
            lengths = np.array([len(ids) for ids in encoded], np.int32)
            flat = np.fromiter((token for ids in encoded for token in ids), np.int32, count=int(lengths.sum()))
            starts = len(self._ids) + np.cumsum(lengths, dtype=np.int32) - lengths
            self._slots.update(zip(unknown, range(len(self._starts), len(self._starts) + len(unknown)), strict=True))
            self._ids = np.concatenate((self._ids, flat))
            self._starts = np.concatenate((self._starts, starts))
            self._lengths = np.concatenate((self._lengths, lengths))
        return np.fromiter((self._slots[part] for part in parts), np.int64, count=len(parts))
