"""The answers of both models side by side, those that changed most first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

PER_LABEL: Final = 4
"""Prompts of each label in the plain-text report."""


@dataclass(frozen=True)
class Room:
    """How much of the answers a page holds; `responses.jsonl` has them all, whole."""

    characters: int = 1200
    """Of a prompt or an answer."""
    prompts: int = 1024


ROOMS: Final = (
    Room(),
    *(Room(characters) for characters in (600, 300, 150)),
    Room(150, 512),
    Room(150, 128),
    Room(75, 64),
)
"""From what is wanted to what must do, where a page would be too large otherwise."""


@dataclass(frozen=True)
class Answer:
    """One model's answer; `text` is cut for the page, never in `responses.jsonl`."""

    text: str | None
    """None: left out of the report altogether."""
    cut: int
    """Characters left out."""
    refused: bool
    log_odds: float | None
    """Of a refusal opening, in nats."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """The judge's, by criterion, in [0, 1]; without those that are missing."""


@dataclass(frozen=True)
class Example:
    """One prompt with both answers."""

    prompt_id: str
    axiom: str
    safety_label: str
    prompt: str
    base: Answer
    tuned: Answer
    same_text: bool = False

    @property
    def flipped(self) -> bool:
        """Whether exactly one of the models refused."""
        return self.base.refused != self.tuned.refused

    @property
    def outcome(self) -> Literal["lost", "gained", "refused", "answered"]:
        """What became of the refusal: lost or gained by the fine-tune, or both models did the same."""
        if self.base.refused:
            return "refused" if self.tuned.refused else "lost"
        return "gained" if self.tuned.refused else "answered"

    @property
    def shift(self) -> float | None:
        """Change (tuned - base) of the refusal log-odds, in nats; None where one is missing."""
        if self.base.log_odds is None or self.tuned.log_odds is None:
            return None
        return self.tuned.log_odds - self.base.log_odds


def list_examples(
    responses: Iterable[Mapping[str, Any]], *, max_characters: int = ROOMS[0].characters, without_unsafe: bool = False
) -> tuple[Example, ...]:
    """Every prompt that both models answered, those whose answers changed most first.

    Most changed = one model refused and the other did not, then a different text, then the larger change of the
    refusal log-odds, then the prompt's id.

    Args:
        responses: rows of `model_responses`.
        max_characters: of each text.
        without_unsafe: whether answers to unsafe prompts are left out.
    """
    pairs: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in responses:
        pairs.setdefault(str(row["prompt_id"]), {})[str(row["model_role"])] = row
    examples = [
        _make_example(pair, max_characters, without_unsafe=without_unsafe)
        for pair in pairs.values()
        if {"base", "tuned"} <= pair.keys()
    ]
    return tuple(sorted(examples, key=_order))


def choose_examples(examples: Sequence[Example], per_label: int = PER_LABEL) -> tuple[Example, ...]:
    """The first of each label, unsafe ones before safe ones, in the order given; `per_label` of each at most."""
    chosen: list[Example] = []
    for label in ("unsafe", "safe"):
        chosen.extend([example for example in examples if example.safety_label == label][:per_label])
    return tuple(chosen)


def _order(example: Example) -> tuple[bool, bool, float, str]:
    size = 0.0 if example.shift is None else abs(example.shift)
    return (not example.flipped, example.same_text, -size, example.prompt_id)


def _make_example(pair: Mapping[str, Mapping[str, Any]], max_characters: int, *, without_unsafe: bool) -> Example:
    base, tuned = pair["base"], pair["tuned"]
    label = str(base["safety_label"])
    without = without_unsafe and label == "unsafe"
    return Example(
        prompt_id=str(base["prompt_id"]),
        axiom=str(base["axiom"]),
        safety_label=label,
        prompt=cut(str(base["prompt"]), max_characters)[0],
        base=_make_answer(base, max_characters, without=without),
        tuned=_make_answer(tuned, max_characters, without=without),
        same_text=str(base["response"]) == str(tuned["response"]),
    )


def _make_answer(row: Mapping[str, Any], max_characters: int, *, without: bool) -> Answer:
    text, left_out = cut(str(row["response"]), max_characters)
    judged: Mapping[str, Mapping[str, Any]] = row.get("judge_scores") or {}
    scores = {name: float(found["score"]) for name, found in judged.items() if found.get("score") is not None}
    return Answer(
        text=None if without else text,
        cut=0 if without else left_out,
        refused=bool(row["refused"]),
        log_odds=row["refusal_log_odds"],
        scores=scores,
    )


def cut(text: str, max_characters: int) -> tuple[str, int]:
    """A text that is not longer, and how many characters went."""
    left_out = max(0, len(text) - max_characters)
    return (f"{text[:max_characters]} …" if left_out else text), left_out
