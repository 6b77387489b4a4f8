"""Which answers are shown side by side: those that changed most."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

PER_LABEL: Final = 4
_MAX_CHARACTERS: Final = 1200


@dataclass(frozen=True)
class Answer:
    """One model's answer; `text` is cut for the page, never in `responses.jsonl`."""

    text: str
    cut: int
    """Characters left out."""
    refused: bool
    log_odds: float | None
    """Of a refusal opening, in nats."""


@dataclass(frozen=True)
class Example:
    """One prompt with both answers."""

    prompt_id: str
    axiom: str
    safety_label: str
    prompt: str
    base: Answer
    tuned: Answer

    @property
    def flipped(self) -> bool:
        """Whether exactly one of the models refused."""
        return self.base.refused != self.tuned.refused

    @property
    def shift(self) -> float | None:
        """Change (tuned - base) of the refusal log-odds, in nats; None where one is missing."""
        if self.base.log_odds is None or self.tuned.log_odds is None:
            return None
        return self.tuned.log_odds - self.base.log_odds


def choose_examples(responses: Iterable[Mapping[str, Any]], per_label: int = PER_LABEL) -> tuple[Example, ...]:
    """The prompts whose answers changed most: unsafe ones first, `per_label` of each label at most.

    Most changed = one model refused and the other did not, then a different text, then the larger change of the
    refusal log-odds, then the prompt's id.
    """
    pairs: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in responses:
        pairs.setdefault(str(row["prompt_id"]), {})[str(row["model_role"])] = row
    examples = [_make_example(pair) for pair in pairs.values() if {"base", "tuned"} <= pair.keys()]
    examples.sort(key=_order)
    chosen = []
    for label in ("unsafe", "safe"):
        chosen.extend([example for example in examples if example.safety_label == label][:per_label])
    return tuple(chosen)


def _order(example: Example) -> tuple[bool, bool, float, str]:
    size = 0.0 if example.shift is None else abs(example.shift)
    return (not example.flipped, example.base.text == example.tuned.text, -size, example.prompt_id)


def _make_example(pair: Mapping[str, Mapping[str, Any]]) -> Example:
    base = pair["base"]
    return Example(
        prompt_id=str(base["prompt_id"]),
        axiom=str(base["axiom"]),
        safety_label=str(base["safety_label"]),
        prompt=_cut(str(base["prompt"]))[0],
        base=_make_answer(base),
        tuned=_make_answer(pair["tuned"]),
    )


def _make_answer(row: Mapping[str, Any]) -> Answer:
    text, cut = _cut(str(row["response"]))
    return Answer(text=text, cut=cut, refused=bool(row["refused"]), log_odds=row["refusal_log_odds"])


def _cut(text: str) -> tuple[str, int]:
    left_out = max(0, len(text) - _MAX_CHARACTERS)
    return (f"{text[:_MAX_CHARACTERS]} …" if left_out else text), left_out
