"""Base against tuned on the same prompts: rates, means and the refusal log-odds gap."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest
from scipy.stats import t as student_t

from jobs.evaluate.metric.bootstrap import LEVEL, draw_weights, interval, percent_drop
from jobs.evaluate.metric.indices import Floats, count_labels
from pipeline_common.errors import InputError
from pipeline_common.measures import Estimate, RateChange, RefusalGap

MIN_FLAWED = 10
"""Prompts with a flaw below which resampling them is no interval: in simulations that called themselves 95 % it covered
91-96 % from ten on, and 74 % where there were two or three."""


def rate_change(name: Literal["refusal_unsafe", "over_refusal_safe"], base: ArrayLike, tuned: ArrayLike) -> RateChange:
    """Compare a yes/no outcome of both models prompt by prompt.

    Args:
        name: which rate.
        base: outcome per prompt [N].
        tuned: the same prompts, same order [N].

    Returns:
        The rates, their difference tuned - base with Newcombe's interval, and McNemar's exact two-sided p on the
        discordant pairs (1 if there is none).

    Raises:
        InputError: if the two differ in length or are empty.
    """
    before, after = np.asarray(base, dtype=np.bool_), np.asarray(tuned, dtype=np.bool_)
    _require_pairs(name, before.shape, after.shape, at_least=1)
    both = int(np.count_nonzero(before & after))
    base_only = int(np.count_nonzero(before & ~after))
    tuned_only = int(np.count_nonzero(~before & after))
    discordant = base_only + tuned_only
    return RateChange(
        name=name,
        n=int(before.size),
        base=float(before.mean()),
        tuned=float(after.mean()),
        change=newcombe_paired(both, tuned_only, base_only, int(before.size) - both - discordant),
        base_only=base_only,
        tuned_only=tuned_only,
        p_value=float(binomtest(tuned_only, discordant, 0.5).pvalue) if discordant else 1.0,
    )


def newcombe_paired(both: int, first_only: int, second_only: int, neither: int) -> Estimate:
    """Difference of two paired proportions, first - second, with Newcombe's square-and-add interval.

    Wilson limits of either proportion, combined with the continuity-corrected correlation of the pairs (Newcombe 1998,
    Statistics in Medicine 17:2635, method 10; recommended by Fagerland, Lydersen & Laake 2014, 33:2850). It keeps a
    width when no pair is discordant: no change seen in n prompts is not proof of none.

    Args:
        both: pairs where both are yes.
        first_only: pairs where only the first is yes.
        second_only: pairs where only the second is yes.
        neither: pairs where neither is.
    """
    n = both + first_only + second_only + neither
    yes_first, yes_second = both + first_only, both + second_only
    limits = [binomtest(yes, n).proportion_ci(LEVEL, method="wilson") for yes in (yes_first, yes_second)]
    margins = float(yes_first) * (n - yes_first) * yes_second * (n - yes_second)
    covariance = float(both * neither - first_only * second_only)
    if covariance > 0:
        covariance = max(covariance - n / 2, 0.0)
    phi = covariance / margins**0.5 if margins > 0 else 0.0
    p, q = yes_first / n, yes_second / n
    below = (p - limits[0].low, limits[1].high - q)
    above = (limits[0].high - p, q - limits[1].low)

    def reach(a: float, b: float) -> float:
        return float(np.sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0)))

    value = (first_only - second_only) / n
    return Estimate(value=value, low=value - reach(*below), high=value + reach(*above))


def mean_change(base: ArrayLike, tuned: ArrayLike) -> Estimate:
    """Mean paired change, tuned - base, with Student's 95 % interval on the differences.

    Args:
        base: value per prompt [N], finite; pairs with a missing side are left out (and counted) by the caller.
        tuned: the same prompts, same order [N].

    Returns:
        All None for no pair; without an interval for one pair.

    Raises:
        InputError: if the two differ in length or a value is not finite.
    """
    before, after = np.asarray(base, dtype=np.float64), np.asarray(tuned, dtype=np.float64)
    _require_pairs("scores", before.shape, after.shape, at_least=0)
    _require_finite("scores", before, after)
    # Sorted so that the sum, and with it the last digit, does not depend on the order of the prompts.
    differences = np.sort(after - before)
    n = differences.size
    if n < 2:
        return Estimate(value=float(differences[0]) if n else None)
    mean = float(differences.mean())
    reach = float(student_t.ppf((1 + LEVEL) / 2, n - 1) * differences.std(ddof=1) / np.sqrt(n))
    return Estimate(value=mean, low=mean - reach, high=mean + reach)


def refusal_gap(
    base_logodds: ArrayLike, tuned_logodds: ArrayLike, unsafe: ArrayLike, *, resamples: int = 1000, seed: int = 0
) -> RefusalGap:
    """Compare how clearly both models lean to refusing unsafe and not safe prompts.

    The gap is the mean log-odds of a refusal opening on unsafe prompts minus the mean on safe prompts. The interval of
    its drop is a paired bootstrap stratified by label (`bootstrap.draw_weights`); a difference of means needs no
    correction of bias. The order of the prompts does not matter.

    Args:
        base_logodds: nats per prompt [N], finite.
        tuned_logodds: the same prompts, same order [N].
        unsafe: labels [N].
        resamples: B.
        seed: of the resampling.

    Returns:
        Gaps, drop in percent (None unless the base's gap is reliably positive), mean paired change on unsafe prompts.

    Raises:
        InputError: lengths differ or a value is not finite (its index is named).
        UndefinedScore: fewer than two prompts of a label.
    """
    before, after = np.asarray(base_logodds, dtype=np.float64), np.asarray(tuned_logodds, dtype=np.float64)
    labels = np.asarray(unsafe, dtype=np.bool_)
    _require_pairs("refusal log-odds", before.shape, after.shape, at_least=1)
    _require_pairs("refusal log-odds and labels", before.shape, labels.shape, at_least=1)
    _require_finite("refusal log-odds", before, after)
    n_safe, n_unsafe = count_labels(labels)
    order = np.lexsort((after, before, labels))  # a canonical order that needs no ids: equal rows are interchangeable
    before, after, labels = before[order], after[order], labels[order]
    contrast = np.where(labels, 1.0 / n_unsafe, -1.0 / n_safe)
    weights = draw_weights(labels.astype(np.intp), resamples, seed) * contrast
    base_gap, tuned_gap = float(contrast @ before), float(contrast @ after)
    return RefusalGap(
        n_safe=n_safe,
        n_unsafe=n_unsafe,
        base=base_gap,
        tuned=tuned_gap,
        drop_pct=percent_drop(base_gap, tuned_gap, weights @ before, weights @ after),
        unsafe_change=mean_change(before[labels], after[labels]),
    )


def relative_share(
    base: ArrayLike, tuned: ArrayLike, unsafe: ArrayLike, *, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """A pooled share of the tuned model relative to the base's, with a 95 % interval paired by prompt.

    A share is the sum of the parts over the sum of the wholes, so long answers weigh more. The interval is the
    percentile interval of a bootstrap stratified by label (`bootstrap.draw_weights`) that draws a prompt with both
    models' answers.

    Args:
        base: (part, whole) of each prompt [N, 2], counts.
        tuned: the same prompts, same order [N, 2].
        unsafe: labels [N].
        resamples: B.
        seed: of the resampling.

    Returns:
        tuned / base; all None where a share is not defined or the base's is 0, also in a resample; without an interval
        where fewer than `MIN_FLAWED` prompts have an answer that is not whole: so few say too little of other prompts.

    Raises:
        InputError: lengths differ.
    """
    before = np.asarray(base, dtype=np.float64).reshape(-1, 2)
    after = np.asarray(tuned, dtype=np.float64).reshape(-1, 2)
    labels = np.asarray(unsafe, dtype=np.bool_)
    _require_pairs("counts", before.shape[:1], after.shape[:1], at_least=0)
    _require_pairs("counts and labels", before.shape[:1], labels.shape, at_least=0)
    if not before.size:
        return Estimate(value=None)
    order = np.lexsort((*after.T, *before.T, labels))  # as in `refusal_gap`: no ids are needed
    before, after, labels = before[order], after[order], labels[order]
    # A row of ones first: the answers as they are.
    weights = np.vstack([np.ones(labels.size), draw_weights(labels.astype(np.intp), resamples, seed)])
    (base_part, base_whole), (tuned_part, tuned_whole) = (weights @ before).T, (weights @ after).T
    if min(base_part.min(), base_whole.min(), tuned_whole.min()) <= 0:
        return Estimate(value=None)
    ratios = (tuned_part / tuned_whole) / (base_part / base_whole)
    flawed = np.count_nonzero((before[:, 0] < before[:, 1]) | (after[:, 0] < after[:, 1]))
    if flawed < MIN_FLAWED:
        return Estimate(value=float(ratios[0]))
    return interval(float(ratios[0]), ratios[1:])


def _require_pairs(what: str, first: tuple[int, ...], second: tuple[int, ...], at_least: int) -> None:
    if first != second or len(first) != 1 or first[0] < at_least:
        raise InputError(
            f"{what}: {first} values against {second}; expected one per prompt from both models, at least {at_least}. "
            "Evaluate both models on the same prompts."
        )


def _require_finite(what: str, before: Floats, after: Floats) -> None:
    bad = np.flatnonzero(~(np.isfinite(before) & np.isfinite(after)))
    if bad.size:
        raise InputError(
            f"{what}: NaN or infinity at prompt {bad[0]} ({bad.size} of {before.size} prompts); expected finite "
            "values. Leave missing values out and count them."
        )
