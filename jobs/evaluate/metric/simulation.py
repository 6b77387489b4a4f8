"""Planted activations with a known answer, and what the score says of them: coverage, bias, power, false alarms.

Legend: n prompts, D width, runs = independent draws of the prompts. Rows are normal with covariance eigenvalues
k^-decay (the spectrum of real hidden states is about 1/k); unsafe rows are shifted along a direction with |shift|^2 =
f2 times the covariance's trace. The tuned model shares part of its noise with the base, as a fine-tune of it does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jobs.evaluate.metric import indices
from jobs.evaluate.metric.bootstrap import assign_strata, draw_weights, interval, percent_drop
from jobs.evaluate.metric.gram import gram_matrix
from jobs.evaluate.metric.indices import Bools, Floats
from jobs.evaluate.metric.role_scores import RoleScore, score_role
from pipeline_common.errors import ConfigError
from pipeline_common.measures import Estimate


@dataclass(frozen=True)
class Plant:
    """What is planted."""

    n: int = 512
    share_unsafe: float = 0.5
    base_f2: float = 1.0
    """Squared distance of the label means over the trace of the covariance, with the true labels."""
    tuned_f2: float = 0.85
    width: int = 64
    decay: float = 1.0
    own_noise: float = 0.3
    """Standard deviation of the tuned model's own noise, relative to the noise it shares with the base."""
    label_noise: float = 0.0
    """Share of prompts whose label is wrong."""
    duplicates: float = 0.0
    """Share of prompts that repeat another prompt of their label."""
    axioms: int = 7

    def expected_f2(self, true_f2: float) -> float:
        """The f2 of the labels as they are: wrong ones pull the means together and widen the groups.

        With a, b the shares of truly unsafe rows among those labelled unsafe and safe: the means lie (a - b) of the
        shift apart, and the within-group variance grows by the shift's times a (1 - a) and b (1 - b).
        """
        e, p = self.label_noise, self.share_unsafe
        labelled = p * (1 - e) + (1 - p) * e
        a, b = p * (1 - e) / labelled, p * e / (1 - labelled)
        widened = labelled * a * (1 - a) + (1 - labelled) * b * (1 - b)
        return (a - b) ** 2 * true_f2 / (1 + widened * true_f2)


@dataclass(frozen=True)
class PlantedPair:
    """One draw."""

    base: Floats
    """[n, D]."""
    tuned: Floats
    unsafe: Bools
    """Labels as measured [n], wrong ones included; safe first."""
    axioms: tuple[str, ...]


@dataclass(frozen=True)
class Coverage:
    """What many draws of one plant gave; shares in [0, 1]."""

    plant: Plant
    runs: int
    f2: float
    """Share of runs whose interval of the base's f2 holds the planted value."""
    difference: float
    """The same for the difference base - tuned, paired."""
    drop_pct: float
    """The same for the drop in percent; undefined drops count as misses."""
    mean_f2: float
    mean_f2_error_pct: float
    """100 (mean f2 of the base - planted) / planted; of the absolute value if 0 is planted."""
    mean_f2_se_pct: float
    """Its Monte Carlo standard error: standard deviation over the runs / sqrt(runs), in the same unit."""
    alarm: float
    """Share of runs whose whole interval of the drop lies above `alarm_pct`: power, or false alarms without a drop."""
    above_zero: float
    """Share of runs whose whole interval of the drop lies above 0."""


def draw_pair(plant: Plant, rng: np.random.Generator) -> PlantedPair:
    """Draw base and tuned rows of the same prompts.

    Raises:
        ConfigError: if a label would have fewer than two prompts.
    """
    n_unsafe = round(plant.share_unsafe * plant.n)
    if not 2 <= n_unsafe <= plant.n - 2:
        raise ConfigError(f"{n_unsafe} of {plant.n} prompts unsafe: expected at least two of either label")
    truth = np.arange(plant.n) >= plant.n - n_unsafe
    spectrum = np.arange(1, plant.width + 1) ** -plant.decay
    deviation = np.sqrt(spectrum)
    shared = rng.standard_normal((plant.n, plant.width)) * deviation
    own = plant.own_noise * rng.standard_normal((plant.n, plant.width)) * deviation
    shift = truth[:, np.newaxis] * deviation  # |deviation|^2 is the covariance's trace, so this plants f2 = 1
    base = shared + np.sqrt(plant.base_f2) * shift
    # Divided so that both models have the same covariance and both f2 are planted exactly.
    tuned = (shared + own) / np.sqrt(1 + plant.own_noise**2) + np.sqrt(plant.tuned_f2) * shift
    rows = _repeat_rows(truth, plant.duplicates, rng)
    unsafe = truth ^ (rng.random(plant.n) < plant.label_noise)
    order = np.argsort(unsafe, kind="stable")
    rows, unsafe = rows[order], unsafe[order]
    axioms = [f"axiom {place % plant.axioms}" for place in range(plant.n)]
    return PlantedPair(base[rows], tuned[rows], unsafe, tuple(axioms))


def measure_coverage(
    plant: Plant, runs: int, resamples: int = 1000, seed: int | Sequence[int] = 0, alarm_pct: float = 10.0
) -> Coverage:
    """Score many draws of one plant with the headline's own functions.

    Args:
        plant: what is planted.
        runs: independent draws; the standard error of a coverage of 95 % is 2.2 / sqrt(runs / 100) points.
        resamples: B of every interval.
        seed: of everything.
        alarm_pct: drop in percent that the whole interval must exceed for an alarm.
    """
    truths = tuple(plant.expected_f2(value) for value in (plant.base_f2, plant.tuned_f2))
    true_drop = 100.0 * (1 - truths[1] / truths[0]) if truths[0] > 0 else None
    covered, alarms, above_zero, values = np.zeros(3), 0, 0, np.empty(runs)
    for run, stream in enumerate(np.random.SeedSequence(seed).spawn(runs)):
        drawn, resampled = stream.spawn(2)
        base, tuned = score_draw(draw_pair(plant, np.random.default_rng(drawn)), resamples, resampled)
        drop = percent_drop(base.f2, tuned.f2, base.f2_cloud, tuned.f2_cloud)
        difference = interval(base.f2 - tuned.f2, base.f2_cloud - tuned.f2_cloud)
        covered += (
            _holds(interval(base.f2, base.f2_cloud), truths[0]),
            _holds(difference, truths[0] - truths[1]),
            _holds(drop, true_drop),
        )
        alarms += drop.low is not None and drop.low > alarm_pct
        above_zero += drop.low is not None and drop.low > 0
        values[run] = base.f2
    mean = float(values.mean())
    return Coverage(
        plant=plant,
        runs=runs,
        f2=float(covered[0] / runs),
        difference=float(covered[1] / runs),
        drop_pct=float(covered[2] / runs),
        mean_f2=mean,
        mean_f2_error_pct=100.0 * (mean - truths[0]) / (truths[0] or 1.0),
        mean_f2_se_pct=100.0 * standard_error(values) / (truths[0] or 1.0),
        alarm=alarms / runs,
        above_zero=above_zero / runs,
    )


def score_draw(
    pair: PlantedPair, resamples: int, seed: int | np.random.SeedSequence = 0
) -> tuple[RoleScore, RoleScore]:
    """Score base and tuned of one draw with the same resampling weights."""
    weights = draw_weights(assign_strata(pair.unsafe, pair.axioms), resamples, seed).astype(np.float32)
    base, tuned = (score_role(gram_matrix(rows, 0.0), pair.unsafe, weights, 0.5) for rows in (pair.base, pair.tuned))
    return base, tuned


def sample_f2(plant: Plant, runs: int, seed: int | Sequence[int] = 0) -> Floats:
    """The base's f2 in many draws [runs], without intervals."""
    pairs = (draw_pair(plant, np.random.default_rng(s)) for s in np.random.SeedSequence(seed).spawn(runs))
    return np.asarray([float(indices.f2(indices.measure_scatter(pair.base, pair.unsafe))) for pair in pairs])


def standard_error(values: Floats) -> float:
    """Of the mean of independent values [runs]; needs at least two."""
    return float(values.std(ddof=1) / np.sqrt(values.size))


def _repeat_rows(truth: Bools, share: float, rng: np.random.Generator) -> NDArray[np.intp]:
    """Row numbers [n] in which a share of the rows is replaced by others of their label."""
    rows = np.arange(truth.size)
    for label in (False, True):
        own = np.flatnonzero(truth == label)
        repeats = round(share * own.size)
        if repeats:
            rows[own[:repeats]] = rng.choice(own[repeats:], size=repeats)
    return rows


def _holds(estimate: Estimate, truth: float | None) -> bool:
    if truth is None or estimate.low is None or estimate.high is None:
        return False
    return estimate.low <= truth <= estimate.high
