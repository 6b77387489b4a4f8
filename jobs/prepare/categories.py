"""Keyword safety categories: which hazard of the MLCommons / Llama Guard taxonomy a request names, S1 to S14.

A rough sorting for the data card, never a label anything is trained on. It reads what humans said, not the
assistant's turns and not a teacher's preamble, and it compares whole words: `kill` is not in "skill", and a compound
such as "drug-interaction" is a word of its own. Everyday words with an innocent sense ("kill a process", "shoot a
photo") count only in phrases that name the hazard; when one phrase contains another, the longer one counts. The
category with most distinct keywords wins. Outcomes beside S1-S14:

- `none`: humans were heard and no keyword fell (most likely harmless; a paraphrase may still hide a hazard);
- `unknown`: no human turn was found, or two categories have equally many distinct keywords.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Final

from jobs.prepare.keywords import KEYWORDS

NONE: Final = "none"
UNKNOWN: Final = "unknown"

CATEGORIES: Final[dict[str, str]] = {
    "S1": "violent crimes",
    "S2": "non-violent crimes",
    "S3": "sex-related crimes",
    "S4": "child sexual exploitation",
    "S5": "defamation",
    "S6": "specialised advice",
    "S7": "privacy",
    "S8": "intellectual property",
    "S9": "indiscriminate weapons",
    "S10": "hate",
    "S11": "suicide and self-harm",
    "S12": "sexual content",
    "S13": "elections",
    "S14": "code-interpreter abuse",
}

_PEOPLE: Final = (
    "him",
    "her",
    "them",
    "someone",
    "somebody",
    "people",
    "anyone",
    "everyone",
    "my wife",
    "my husband",
    "my boss",
    "my neighbor",
    "my neighbour",
)

_OBJECTS: Final[dict[str, tuple[str, ...]]] = {"S1": ("kill", "stab", "strangle", "attack", "poison", "hurt")}

_WORD: Final = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")


def categorize(human_texts: Iterable[str]) -> str:
    """The hazard category of what humans said.

    Args:
        human_texts: the human turns of one conversation.

    Returns:
        "S1" ... "S14", "none" or "unknown".
    """
    by_first_word = _keywords_by_first_word()
    hits: dict[str, set[str]] = {}
    heard = False
    for text in human_texts:
        words = split_words(text)
        heard = heard or bool(words)
        line = ""
        for first in by_first_word.keys() & set(words):
            line = line or f" {' '.join(words)} "
            for keyword, category in by_first_word[first]:
                if f" {keyword} " in line:
                    hits.setdefault(category, set()).add(keyword)
    if not hits:
        return NONE if heard else UNKNOWN
    # The longer phrase says what is meant: a "fork bomb" is no bomb.
    phrases = [f" {keyword} " for found in hits.values() for keyword in found if " " in keyword]
    for found in hits.values():
        found -= {word for word in found if any(f" {word} " in phrase and f" {word} " != phrase for phrase in phrases)}
    most = max(len(found) for found in hits.values())
    leading = [category for category, found in hits.items() if len(found) == most]
    return leading[0] if len(leading) == 1 else UNKNOWN


def split_words(text: str) -> list[str]:
    """Words in lower case: letters and digits, joined by inner hyphens and apostrophes; a possessive 's goes."""
    return [word.removesuffix("'s") for word in _WORD.findall(text.casefold().replace("’", "'"))]


def all_keywords() -> dict[str, tuple[str, ...]]:
    """Category -> its keywords, in lower case with single spaces."""
    found = {category: tuple(_entries(text)) for category, text in KEYWORDS.items()}
    for category, verbs in _OBJECTS.items():
        found[category] += tuple(f"{verb} {person}" for verb in verbs for person in _PEOPLE)
    return {category: tuple(dict.fromkeys(keywords)) for category, keywords in found.items()}


def _entries(text: str) -> list[str]:
    return [entry.strip() for entry in text.split(",")]


@cache
def _keywords_by_first_word() -> dict[str, tuple[tuple[str, str], ...]]:
    index: dict[str, list[tuple[str, str]]] = {}
    for category, keywords in all_keywords().items():
        for keyword in keywords:
            index.setdefault(keyword.split(" ", 1)[0], []).append((keyword, category))
    return {first: tuple(entries) for first, entries in index.items()}
