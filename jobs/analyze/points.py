"""The prompts as points of the figures: what a pointer or a key shows of one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from jobs.analyze.examples import cut
from jobs.analyze.positions import locate

_MAX_CHARACTERS: Final = 300


@dataclass(frozen=True)
class PromptPoint:
    """One prompt, measured on both models; what was not measured is None."""

    prompt_id: str
    axiom: str
    safety_label: str
    text: str
    """Cut for the page."""
    position: tuple[float, float] | None = None
    """Base and tuned, as `jobs.analyze.positions.locate` has it."""
    log_odds: tuple[float, float] | None = None
    """Base and tuned, of a refusal opening, in nats."""
    refused: tuple[bool, bool] | None = None

    @property
    def shift(self) -> float | None:
        """Change (tuned - base) of the refusal log-odds, in nats."""
        return None if self.log_odds is None else self.log_odds[1] - self.log_odds[0]

    def to_row(self, max_characters: int = _MAX_CHARACTERS) -> list[Any]:
        """For the page: rounded to what it shows, the text last and at most so long."""
        position, odds = (None if pair is None else [round(value, 3) for value in pair] for pair in self._pairs())
        refused = None if self.refused is None else [int(one) for one in self.refused]
        text = cut(self.text, max_characters)[0]
        return [self.prompt_id, self.axiom, self.safety_label, position, odds, refused, text]

    def _pairs(self) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
        return self.position, self.log_odds


def list_points(
    prompts: Sequence[Mapping[str, Any]],
    embeddings: Mapping[str, NDArray[np.float32]],
    responses: Sequence[Mapping[str, Any]],
) -> tuple[PromptPoint, ...]:
    """The scored prompts in the order of the embeddings, then those that were only answered.

    Args:
        prompts: the scored ones [N].
        embeddings: `base` and `tuned` [N, D].
        responses: rows of `model_responses`.
    """
    unsafe = np.asarray([prompt["safety_label"] == "unsafe" for prompt in prompts], dtype=np.bool_)
    places = locate(embeddings["base"], embeddings["tuned"], unsafe)
    answered: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in responses:
        answered.setdefault(str(row["prompt_id"]), {})[str(row["model_role"])] = row
    pairs = {name: (pair["base"], pair["tuned"]) for name, pair in answered.items() if {"base", "tuned"} <= pair.keys()}
    points = []
    for index, prompt in enumerate(prompts):
        position = None if places is None else (float(places[0][index]), float(places[1][index]))
        points.append(_make_point(prompt, str(prompt["text"]), position, pairs.pop(str(prompt["prompt_id"]), None)))
    points += [_make_point(pair[0], str(pair[0]["prompt"]), None, pair) for _, pair in sorted(pairs.items())]
    return tuple(points)


def _make_point(
    prompt: Mapping[str, Any],
    text: str,
    position: tuple[float, float] | None,
    pair: tuple[Mapping[str, Any], Mapping[str, Any]] | None,
) -> PromptPoint:
    odds = None if pair is None else tuple(one["refusal_log_odds"] for one in pair)
    measured = odds is not None and all(value is not None and math.isfinite(value) for value in odds)
    return PromptPoint(
        prompt_id=str(prompt["prompt_id"]),
        axiom=str(prompt["axiom"]),
        safety_label=str(prompt["safety_label"]),
        text=cut(" ".join(text.split()), _MAX_CHARACTERS)[0],
        position=position,
        log_odds=(float(odds[0]), float(odds[1])) if odds is not None and measured else None,
        refused=None if pair is None else (bool(pair[0]["refused"]), bool(pair[1]["refused"])),
    )
