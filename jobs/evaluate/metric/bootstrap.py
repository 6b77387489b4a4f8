"""Intervals that cover: stratified, paired, bias-corrected and recentred bootstrap.

The plain percentile bootstrap is wrong for these indices: repeated rows shrink W and stretch d2, so the cloud of
resampled scores lies well above the score itself (nominal 95 % covers 33 % at n = 64). Three remedies together: the
bias-corrected f2 is resampled and everything else derived from it; its cloud is moved so that its mean is the
estimate; and a stratum of m rows is drawn m - 1 times with weights m / (m - 1), which makes the variance right in small
strata, too (Rao & Wu 1988, JASA 83:231). Strata are label x axiom. Both models get the same weights (paired by prompt),
so what the prompts share cancels from a difference.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from jobs.evaluate.metric.indices import Bools, Floats
from pipeline_common.errors import InputError
from pipeline_common.measures import Estimate

LEVEL = 0.95
MIN_STRATUM = 8
"""Rows below which a label x axiom stratum is pooled with the label's other small ones: it has no spread of its own."""

Ints = NDArray[np.intp]


def canonical_order(prompt_ids: Sequence[str]) -> Ints:
    """Indices that sort the prompts by id, so that no result depends on the order they came in.

    Raises:
        InputError: if an id occurs twice.
    """
    ids = np.asarray(prompt_ids, dtype=np.str_)
    order = np.argsort(ids, kind="stable")
    repeated = np.flatnonzero(ids[order][1:] == ids[order][:-1])
    if repeated.size:
        raise InputError(
            f"prompt id {ids[order][repeated[0]]} occurs more than once ({repeated.size} repeats); expected unique "
            "prompts: repeated ones inflate every score. Run prepare again on de-duplicated prompts."
        )
    return order


def label_order(unsafe: Bools, prompt_ids: Sequence[str]) -> Ints:
    """Indices that sort the prompts by label (safe first), then by id: the order everything is computed in.

    Raises:
        InputError: if an id occurs twice.
    """
    order = canonical_order(prompt_ids)
    return order[np.argsort(np.asarray(unsafe, dtype=np.bool_)[order], kind="stable")]


def assign_strata(unsafe: Bools, axioms: Sequence[str]) -> Ints:
    """Number the strata label x axiom; a label's strata of fewer than `MIN_STRATUM` rows share one number.

    Returns:
        Stratum of each prompt [n], 0-based.
    """
    keys = np.asarray([f"{int(u)} {a}" for u, a in zip(unsafe, axioms, strict=True)])
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    keys = np.where(counts[inverse] < MIN_STRATUM, np.where(unsafe, "1", "0"), keys)
    return np.asarray(np.unique(keys, return_inverse=True)[1], dtype=np.intp)


def draw_weights(strata: Ints, resamples: int, seed: int | np.random.SeedSequence) -> Floats:
    """Draw Rao-Wu resampling weights.

    Args:
        strata: stratum of each prompt [n].
        resamples: B.
        seed: of the random stream; the same seed, strata and B give the same weights.

    Returns:
        C [B, n], >= 0; each stratum's weights sum to its size. A stratum of one row always has weight 1.
    """
    rng = np.random.default_rng(seed)
    weights = np.ones((resamples, strata.size))
    offsets = np.arange(resamples)[:, np.newaxis]
    for stratum in range(int(strata.max()) + 1):
        rows = np.flatnonzero(strata == stratum)
        m = rows.size
        if m < 2:
            continue
        drawn = rng.integers(0, m, size=(resamples, m - 1))
        counts = np.bincount((offsets * m + drawn).ravel(), minlength=resamples * m).reshape(resamples, m)
        weights[:, rows] = counts * (m / (m - 1))
    return weights


def recentre(cloud: Floats, estimate: float) -> Floats:
    """Move resampled values [B] so that their mean is the estimate."""
    return np.asarray(cloud + (estimate - cloud.mean()))


def interval(value: float, cloud: Floats) -> Estimate:
    """The two-sided 95 % percentile interval of a recentred cloud [B] around its value."""
    low, high = np.quantile(cloud, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value=value, low=float(low), high=float(high))


def percent_drop(base: float, tuned: float, base_cloud: Floats, tuned_cloud: Floats) -> Estimate:
    """100 (base - tuned) / base with its paired 95 % interval; positive = lost.

    Args:
        base: the base's value.
        tuned: the tuned model's value.
        base_cloud: the base's recentred resampled values [B].
        tuned_cloud: the tuned model's, from the same weights [B].

    Returns:
        All None unless the base's value and its every resample lie above 0: a percentage of something that may be
        nothing has no bounded interval (Fieller's condition).
    """
    if not (base > 0 and base_cloud.min() > 0):
        return Estimate(value=None)
    return interval(100.0 * (base - tuned) / base, 100.0 * (base_cloud - tuned_cloud) / base_cloud)
