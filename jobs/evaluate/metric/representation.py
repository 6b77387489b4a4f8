"""From pooled activations to the one matrix that is scored.

Legend: N prompts, L layers, D width; activations [N, L + 1, D] with entry 0 the embeddings and entry l the state after
layer l (the last one after the final norm).

Per-layer normalisation, fitted on the base model and applied to both: subtract the base's mean, divide by the base's
root mean square distance to that mean. Norms grow with depth, so without it late layers dominate an average; with it
every layer enters with the same total variance on the base. One scale for a whole layer is all that is done: the
indices are invariant to it for one layer, so a layer's own score is that of its raw states, and a layer that
shrinks in the tuned model weighs less there. The mean norm would not do: it is dominated by the offset that all prompts
share and says nothing of how far prompts lie apart. Scaling each row to unit norm would hide prompts whose state
collapses.

Everything else that is fitted (learned layer weights, principal components) is fitted on the base, too, frozen in a
`Representation` (`jobs.evaluate.metric.ruler`) and applied to both models.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from jobs.evaluate.metric.indices import ROUNDING, Floats, UndefinedScore
from pipeline_common.diagnostic_measures import LearnedWeights
from pipeline_common.errors import ConfigError, InputError

Activations = NDArray[np.float32]
LayerMode = Literal["band", "all", "learned"] | int

BAND = (0.4, 0.8)
"""Default range of relative depth, where alignment shows (the paper's learned weights fall on layers 11-24 of 30)."""


@dataclass(frozen=True, eq=False)
class Representation:
    """What both models are measured by: layers, their weights and, if only some directions count, these."""

    layers: tuple[int, ...]
    """Entries of the layer axis that are averaged."""
    weights: tuple[float, ...]
    """One per entry of `layers`, > 0, summing to 1."""
    axes: Floats | None = None
    """Orthonormal directions [D, k] to project on (the base's principal components); None = all dimensions."""
    axes_variance: float | None = None
    """Share of the base's variance along `axes`, in [0, 1]."""


@dataclass(frozen=True)
class LayerScaling:
    """One layer's normalisation, fitted on the base model."""

    centre: Floats
    """Mean of the base's states [D]."""
    scale: float
    """Root mean square distance of the base's states to `centre`, > 0."""


@dataclass(frozen=True)
class Embedding:
    """One vector per prompt."""

    values: Floats
    """[N, D], or [N, k] on k components."""
    rounding: float
    """Root mean square distance that float32 rounding of the states amounts to, in the unit of `values`."""


def select_layers(mode: LayerMode, n_layers: int, band: tuple[float, float] = BAND) -> tuple[int, ...]:
    """Which entries of the layer axis are averaged.

    Args:
        mode: "band" = the layers l with l / L inside `band` (layers 2 and 3 of 4; 13-25 of 32; if none lies inside,
            the one nearest its middle),
            "all" = 1 ... L (the embeddings are no layer's work), "learned" = the same, to choose from; or one entry
            0 ... L.
        n_layers: L, without the embeddings.
        band: first and last relative depth, both included.

    Raises:
        ConfigError: if the entry does not exist.
    """
    if isinstance(mode, int):
        if not 0 <= mode <= n_layers:
            raise ConfigError(f"layer {mode} does not exist: the model has layers 0 (embeddings) to {n_layers}")
        return (mode,)
    every = range(1, n_layers + 1)
    if mode in ("all", "learned"):
        return tuple(every)
    start, end = band
    slack = 1e-9  # 0.4 x 15 must reach 6 whatever the product's last bit
    inside = tuple(layer for layer in every if start - slack <= layer / n_layers <= end + slack)
    return inside or (min(every, key=lambda layer: abs(layer - (start + end) / 2 * n_layers)),)


def average_layers(layers: Sequence[int]) -> Representation:
    """The uniform mean of layers, on all dimensions."""
    return Representation(tuple(layers), (1.0 / len(layers),) * len(layers))


def describe_representation(representation: Representation, n_layers: int, learned: LearnedWeights | None) -> str:
    """Layers, weights, normalisation and components in words, for the report."""
    layers, weights = representation.layers, representation.weights
    if learned:
        named = ", ".join(f"{layer} ({weight:.3g})" for layer, weight in zip(layers, weights, strict=True))
        chosen = (
            f"mean of layers 1-{n_layers} weighted by a sparsemax that was learned on {learned.n_safe} safe and "
            f"{learned.n_unsafe} unsafe prompts of the base model, none of which is scored: layer {named}"
        )
    elif len(layers) == 1:
        chosen = f"layer {layers[0]} of {n_layers}"
    else:
        chosen = f"uniform mean of layers {layers[0]}-{layers[-1]} of {n_layers}"
    words = f"{chosen}; each layer centred and scaled by the base model's mean and spread"
    if representation.axes is None or representation.axes_variance is None:
        return words
    return (
        f"{words}; both models projected on the base model's first {representation.axes.shape[1]} principal "
        f"components ({representation.axes_variance:.1%} of its variance)"
    )


def require_finite(
    activations: Activations, prompt_ids: Sequence[str], model_role: str, rows: Iterable[int] | None = None
) -> None:
    """Refuse NaN and infinity.

    Args:
        activations: [N, L + 1, D].
        prompt_ids: of all of them [N].
        model_role: whose activations they are.
        rows: which of them are looked at; None = all.

    Raises:
        InputError: naming the first prompt and layer with a value that is not finite, and how many there are.
    """
    numbers = range(len(activations)) if rows is None else sorted(rows)
    bad = np.asarray([~np.isfinite(activations[number]).all(axis=1) for number in numbers])  # [rows, L + 1]
    if bad.any():
        row, layer = (int(i) for i in np.argwhere(bad)[0])
        prompt = numbers[row]
        raise InputError(
            f"{model_role} activations: NaN or infinity at prompt {prompt} ({prompt_ids[prompt]}), layer {layer} "
            f"({int(bad.sum())} of {bad.size} prompt-layer states); expected finite float32 values. "
            "Pool in float32 and check the model's weights and precision."
        )


def fit_layer_scaling(base_layer: Activations, layer: int) -> LayerScaling:
    """Fit one layer's normalisation on the base model's states [N, D].

    Raises:
        UndefinedScore: if the states are equal for every prompt up to rounding (the embedding of a shared last token).
    """
    return _fit(base_layer, layer)[0]


def embed_pair(
    base: Activations, tuned: Activations, representation: Representation, order: NDArray[np.intp] | None = None
) -> tuple[Embedding, Embedding]:
    """Average normalised layers of both models into one vector per prompt, and project it where that is asked for.

    Args:
        base: [N, L + 1, D], finite.
        tuned: the same shape.
        representation: which layers, how much of each, and on which directions.
        order: prompts in the order of the result; None = as they come. The activations may fill much of the memory,
            so they are put in order layer by layer.

    Returns:
        The base's and the tuned model's vectors [N, D] or [N, k], normalised alike.

    Raises:
        UndefinedScore: if one of the layers is constant in the base.
    """
    rows = slice(None) if order is None else order
    sums: list[Floats | None] = [None, None]
    rounding = [0.0, 0.0]
    for layer, weight in zip(representation.layers, representation.weights, strict=True):
        states = base[rows, layer]
        scaling, centred = _fit(states, layer)
        share = weight / scaling.scale
        of_tuned = tuned[rows, layer]
        for role, states_of in enumerate((states, of_tuned)):
            normalised = centred if role == 0 else of_tuned - scaling.centre
            normalised *= share
            total = sums[role]
            sums[role] = normalised if total is None else np.add(total, normalised, out=total)
            rounding[role] += ROUNDING * _rms(states_of) * share
    axes = representation.axes
    # A projection shortens every difference, rounding's too: what bounds it before bounds it after.
    projected = [total if axes is None else total @ axes for total in sums if total is not None]
    in_base, in_tuned = (Embedding(values, r) for values, r in zip(projected, rounding, strict=True))
    return in_base, in_tuned


def _fit(base_layer: Activations, layer: int) -> tuple[LayerScaling, Floats]:
    """The normalisation, and the states about their centre [N, D]: for those who go on with them."""
    centre = base_layer.mean(axis=0, dtype=np.float64)
    centred = base_layer - centre
    scale = _rms(centred)
    if not scale > ROUNDING * _rms(base_layer):
        raise UndefinedScore(f"layer {layer} is the same for every prompt: nothing to separate")
    return LayerScaling(centre, scale), centred


def _rms(rows: NDArray[np.floating]) -> float:
    """Root mean square norm of the rows."""
    return float(np.sqrt(np.einsum("nd,nd->", rows, rows, dtype=np.float64) / len(rows)))
