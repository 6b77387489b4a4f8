"""Parts of several processes as one whole, in the order of the prompts: how many there were does not show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jobs.evaluate.openings import Opening, OpeningSet
from jobs.evaluate.parts import Part
from jobs.evaluate.sharing import ROLES

if TYPE_CHECKING:
    from jobs.evaluate.model_generation import Generated


def merge_activations(tables: Mapping[str, NDArray[np.float32]], parts: Sequence[Part], prompts: int) -> None:
    """Complete the activations of each role. Every process has found its own finite before it handed them over.

    Args:
        tables: role -> [N, L + 1, D], with the rows that this machine's processes wrote; the other machines' are put
            into it.
        parts: everybody's; a record names a role and its rows.
        prompts: N.
    """
    for role, table in tables.items():
        found = [(one["rows"], part) for part in parts for one in part.records if one["role"] == role]
        _require_all([row for rows, _ in found for row in rows], prompts, f"activations of the {role} model")
        for rows, part in found:
            if role in part.tensors:
                table[list(rows)] = part.tensors[role]


def merge_answers(
    parts: Sequence[Part],
) -> tuple[dict[str, list[Generated]], dict[str, list[list[Opening]]]]:
    """Model role -> greedy answers, and model role -> beginnings of refusals of the searched prompts."""
    from jobs.evaluate.model_answering import ANSWER, SEARCH
    from jobs.evaluate.model_generation import Generated

    def ordered(task: str, role: str) -> list[Mapping[str, Any]]:
        found = [one for part in parts for one in part.records if (one["task"], one["role"]) == (task, role)]
        _require_all([one["row"] for one in found], len(found), f"{task} of the {role} model")
        return sorted(found, key=lambda one: int(one["row"]))

    answers = {
        role: [Generated(one["text"], tuple(one["token_ids"]), one["stop_id"]) for one in ordered(ANSWER, role)]
        for role in ROLES
    }
    beams = {role: [[tuple(opening) for opening in one["openings"]] for one in ordered(SEARCH, role)] for role in ROLES}
    return answers, beams


def merge_log_odds(parts: Sequence[Part], size: int) -> dict[str, NDArray[np.float64]]:
    """Model role -> log-odds [N], nats."""
    found: dict[str, dict[int, float]] = {}
    for part in parts:
        for one in part.records:
            found.setdefault(one["role"], {})[one["row"]] = one["value"]
    for role, values in found.items():
        _require_all(list(values), size, f"log-odds of the {role} model")
    return {role: np.asarray([values[row] for row in range(size)]) for role, values in found.items()}


def describe_openings(openings: OpeningSet | str) -> dict[str, Any]:
    """As JSON."""
    return {"none": openings} if isinstance(openings, str) else openings.model_dump(mode="json")


def read_openings(said: Mapping[str, Any]) -> OpeningSet | str:
    """What `describe_openings` described."""
    return str(said["none"]) if "none" in said else OpeningSet.model_validate(said)


def _require_all(rows: Sequence[int], size: int, what: str) -> None:
    if sorted(rows) != list(range(size)):
        raise AssertionError(f"{what}: {len(rows)} parts for {size} prompts, {len(set(rows))} different ones")
