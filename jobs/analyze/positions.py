"""Where each prompt lies between the base's two labels, in both models: the geometry's change prompt by prompt."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

_BLOCK: Final = 512
"""Prompts at once: a direction of its own for each costs as much memory as the states."""


def locate(
    base: NDArray[np.float32], tuned: NDArray[np.float32], unsafe: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Positions along the base's direction from its safe to its unsafe centre.

    0 = halfway between the model's own two centres, -1/2 = at the safe centre, +1/2 = at the unsafe one, where the
    unit is the base's distance of the centres for both models. A prompt's own state is left out of the centres it is
    measured by: with many dimensions it would pull them towards itself and look better placed than it is.

    Args:
        base: the scored representation [N, D].
        tuned: the same of the tuned model.
        unsafe: labels [N].

    Returns:
        Positions [N] in the base and in the tuned model; None where a label has fewer than 2 prompts or the base's
        centres coincide.
    """
    counts = {label: int((unsafe == label).sum()) for label in (False, True)}
    if min(counts.values()) < 2:
        return None
    sums = {
        role: {label: states[unsafe == label].sum(axis=0, dtype=np.float64) for label in (False, True)}
        for role, states in (("base", base), ("tuned", tuned))
    }
    found = {"base": np.empty(len(unsafe)), "tuned": np.empty(len(unsafe))}
    for label in (False, True):
        rows = np.flatnonzero(unsafe == label)
        sign = 1.0 if label else -1.0
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            other = {role: sums[role][not label] / counts[not label] for role in found}
            states = {"base": base[block].astype(np.float64), "tuned": tuned[block].astype(np.float64)}
            own = {role: (sums[role][label] - states[role]) / (counts[label] - 1) for role in found}
            direction = sign * (own["base"] - other["base"])
            squared = np.einsum("nd,nd->n", direction, direction)
            if not (squared > 0).all():
                return None
            for role, places in found.items():
                off_middle = states[role] - (own[role] + other[role]) / 2
                places[block] = np.einsum("nd,nd->n", off_middle, direction) / squared
    return found["base"], found["tuned"]
