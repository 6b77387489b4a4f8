"""What is planted in synthetic activations, and what is promised of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

from jobs.evaluate.metric.simulation import Plant

Group = Literal["coverage", "mean", "label noise", "duplicates", "power"]

COVERAGE_PROMISED: Final = (0.93, 0.97)
"""Of nominal 95 % intervals, in the group "coverage"."""
MEAN_PROMISED_PCT: Final = 3.0
"""Largest error of the mean f2, in the group "mean"."""
ALARM_PCT: Final = 10.0
"""The verdict's geometry warns when the whole interval of the drop lies above this."""

COVERAGE_SIZES: Final = (128, 256, 512)
MEAN_SIZES: Final = (64, 128, 256, 512, 1024, 2048, 4096)
POWER_SIZES: Final = (128, 256, 512, 1024)
SHARES_UNSAFE: Final = (0.5, 0.3)
DECAYS: Final = (0.5, 1.0, 1.5)
LABEL_NOISE: Final = (0.01, 0.05, 0.1)
DUPLICATES: Final = (0.0, 0.1, 0.5)
DROPS_PCT: Final = (0, 5, 10, 15, 20, 30)
_MIDDLE: Final = 256
"""Prompts where n is not what is varied."""
_MEAN_RUNS: Final = 4
"""A mean is cheap (no resampling), and its 3 % are narrower than a few hundred draws of 64 prompts can tell."""


@dataclass(frozen=True)
class SyntheticCell:
    """One plant, drawn many times."""

    group: Group
    plant: Plant
    runs: int
    resamples: int
    """B of every interval; 0 = the mean alone, without intervals."""

    @property
    def name(self) -> str:
        """For a log line, and for the seed: a cell draws the same whatever else is in the plan."""
        plant = self.plant
        return (
            f"{self.group}: n={plant.n} unsafe={plant.share_unsafe:g} decay={plant.decay:g} "
            f"noise={plant.label_noise:g} duplicates={plant.duplicates:g} drop={drop_pct(plant):g}"
        )


def drop_pct(plant: Plant) -> float:
    """The planted drop of f2 in percent of the base's, with the true labels."""
    return round(100.0 * (1.0 - plant.tuned_f2 / plant.base_f2), 6)


def spectrum(decay: float) -> str:
    """The covariance's eigenvalues in words."""
    return "1/k" if decay == 1 else f"1/k^{decay:g}"


def plan_synthetic(runs: int, resamples: int) -> list[SyntheticCell]:
    """All cells, in the order of the tables.

    Args:
        runs: draws of each plant (four times as many where only the mean is asked).
        resamples: B of every interval.
    """
    return list(_plan(runs, resamples))


def _plan(runs: int, resamples: int) -> Iterator[SyntheticCell]:
    for decay in DECAYS:
        for n in COVERAGE_SIZES:
            for share in SHARES_UNSAFE:
                plant = replace(Plant(), n=n, share_unsafe=share, decay=decay)
                yield SyntheticCell("coverage", plant, runs, resamples)
    for n in MEAN_SIZES:
        for share in SHARES_UNSAFE:
            yield SyntheticCell("mean", replace(Plant(), n=n, share_unsafe=share), _MEAN_RUNS * runs, 0)
    for noise in LABEL_NOISE:
        yield SyntheticCell("label noise", replace(Plant(), n=_MIDDLE, label_noise=noise), runs, resamples)
    for duplicates in DUPLICATES:
        yield SyntheticCell("duplicates", replace(Plant(), n=_MIDDLE, duplicates=duplicates), runs, resamples)
    for n in POWER_SIZES:
        for drop in DROPS_PCT:
            plant = replace(Plant(), n=n, tuned_f2=Plant().base_f2 * (100 - drop) / 100)
            yield SyntheticCell("power", plant, runs, resamples)
