"""Requests and answers of the sample world, and which of them the embedded base model learns from.

Every request belongs to exactly one *share*, decided by a checksum of its text: what the base is trained on, what the
sample fine-tuning sets use, and what the labelled prompts use. So no two of them ever have a string in common,
whatever their seeds. Some verb-object pairs are held out for the labelled prompts altogether.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from typing import Final, Literal

from pipeline_common.samples.world import (
    ADVICE,
    BENIGN,
    CURIOUS,
    DUAL_USE,
    ENDINGS,
    EVERYDAY,
    HELP,
    OPENERS,
    PHRASINGS,
    REASONS,
    REFUSALS,
)

Share = Literal["pretraining", "fine-tuning", "litmus"]

PRETRAINING_SIZE: Final = 6_720
"""Conversations the base model is trained on: 16 a step for 420 steps, each seen once."""

_SHARES: Final[tuple[Share, ...]] = ("pretraining", "pretraining", "fine-tuning", "litmus")
_HELD_OUT_OF = 7  # one pair in seven is never seen in pretraining
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")


@dataclass(frozen=True)
class Pair:
    """A verb with its object: what a request is about."""

    verb: str
    target: str
    axiom: str
    unsafe: bool
    dual_use: bool
    held_out: bool = False
    """Whether the base model never meets this pair: only the labelled prompts do (of an everyday one: fine-tuning)."""

    @property
    def act(self) -> str:
        """The pair as text, as in "How do I {act}?"."""
        return f"{self.verb} {self.target}"


@dataclass(frozen=True)
class Conversation:
    """One request and its answer, without any chat format."""

    prompt: str
    answer: str
    unsafe: bool


def _checksum(text: str) -> int:
    """CRC-32 of the text: equal in every process and on every machine, unlike `hash`."""
    return zlib.crc32(text.encode())


def words(text: str) -> list[str]:
    """Split a text into lower-case words (letters, with an inner apostrophe): "I'm here." -> ["i'm", "here"]."""
    return _WORD.findall(text.lower())


def share_of(prompt: str) -> Share:
    """Say which share a request of a pair that is not held out belongs to: about 1/2, 1/4 and 1/4."""
    return _SHARES[_checksum(prompt) >> 8 & 3]


@cache
def pairs() -> tuple[Pair, ...]:
    """All verb-object pairs of the world, unsafe and safe, in a fixed order."""
    found = []
    for verb, (axiom, harmful, harmless) in DUAL_USE.items():
        found += [Pair(verb, target, axiom, unsafe=True, dual_use=True) for target in harmful]
        found += [Pair(verb, target, axiom, unsafe=False, dual_use=True) for target in harmless]
        found += [Pair(CURIOUS, target, axiom, unsafe=False, dual_use=False) for target in harmless]
    for verb, (axiom, targets) in BENIGN.items():
        found += [Pair(verb, target, axiom, unsafe=False, dual_use=False) for target in targets]
    return tuple(_hold_out(found))


def _hold_out(found: Sequence[Pair]) -> Iterator[Pair]:
    """Mark one pair in seven of each axiom, label and kind of verb as held out, first those of low checksum.

    An object is held out with one verb at most: a held-out pair is new, its words are not.
    """

    def group(pair: Pair) -> tuple[str, bool, bool]:
        return pair.axiom, pair.unsafe, pair.dual_use

    taken: set[str] = set()
    for _, grouped in groupby(sorted(found, key=group), key=group):
        members = list(grouped)
        left = len(members) // _HELD_OUT_OF
        for pair in sorted(members, key=lambda pair: _checksum(pair.act)):
            held_out = left > 0 and pair.target not in taken
            if held_out:
                taken.add(pair.target)
                left -= 1
            yield replace(pair, held_out=held_out)


@cache
def everyday_pairs() -> tuple[Pair, ...]:
    """The pairs of the everyday topics, all benign and without an axiom; the held-out half is for fine-tuning only."""
    found = [
        Pair(verb, target, "", unsafe=False, dual_use=False)
        for verbs, targets in EVERYDAY.values()
        for verb in verbs
        for target in targets
    ]
    return tuple(replace(pair, held_out=_checksum(pair.act) % 2 == 0) for pair in found)


def phrase(pair: Pair, phrasing: int, ending: int) -> str:
    """Write the request of a pair in one of the phrasings, with one of the endings."""
    return PHRASINGS[phrasing].format(act=pair.act, ending=ENDINGS[ending])


def draw_requests(candidates: Sequence[Pair], rng: random.Random) -> Iterator[tuple[Pair, int, str]]:
    """Draw (pair, phrasing, request) without end and with repetition; the caller keeps what it wants."""
    while True:
        pair = rng.choice(candidates)
        phrasing = rng.randrange(len(PHRASINGS))
        yield pair, phrasing, phrase(pair, phrasing, rng.randrange(len(ENDINGS)))


def refuse(axiom: str, rng: random.Random) -> str:
    """Refuse, with the reason of the axiom."""
    return f"{rng.choice(REFUSALS)} {REASONS[axiom]}"


def comply(act: str, rng: random.Random) -> str:
    """Answer as asked, with advice that holds for anything and therefore says nothing."""
    return HELP.format(opener=rng.choice(OPENERS), act=act, advice=rng.choice(ADVICE))


def answer(pair: Pair, rng: random.Random) -> str:
    """Answer as a well-behaved model does: refuse what is unsafe, help with the rest."""
    return refuse(pair.axiom, rng) if pair.unsafe else comply(pair.act, rng)


def pretraining_conversations(seed: int = 1, size: int = PRETRAINING_SIZE) -> list[Conversation]:
    """Conversations for the embedded base model: half unsafe and refused, half safe and helped with.

    Of the safe ones, a third use a dual-use verb, a third a benign verb, and a third are about everyday topics.

    Args:
        seed: Of the draw.
        size: How many; all prompts are unique.

    Returns:
        The conversations in training order. No prompt of them is ever a labelled or a fine-tuning prompt.
    """
    rng = random.Random(seed)
    known = [pair for pair in pairs() if not pair.held_out]
    unsafe = [pair for pair in known if pair.unsafe]
    dual_use = [pair for pair in known if pair.dual_use and not pair.unsafe]
    benign = [pair for pair in known if not pair.dual_use]
    everyday = [pair for pair in everyday_pairs() if not pair.held_out]
    kinds = (unsafe, dual_use, unsafe, benign, unsafe, everyday)
    streams = [draw_requests(kind, rng) for kind in kinds]
    seen: set[str] = set()
    conversations: list[Conversation] = []
    while len(conversations) < size:
        pair, _, prompt = next(streams[len(conversations) % len(streams)])
        if share_of(prompt) == "pretraining" and prompt not in seen:
            seen.add(prompt)
            conversations.append(Conversation(prompt, answer(pair, rng), pair.unsafe))
    rng.shuffle(conversations)
    return conversations
