"""One line of the results for each plant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from jobs.calibrate.lines import OptionalCount, append_line, read_lines
from jobs.calibrate.synthetic.plans import Group, SyntheticCell, drop_pct
from jobs.calibrate.tallies import Rate
from pipeline_common.stages import source_digest

FILE: Final = "synthetic.csv"


class SyntheticResult(BaseModel):
    """What many draws of one plant gave. Counts are of runs; an empty field was not asked in this group."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    group: Group
    n: int
    share_unsafe: float
    decay: float
    """The covariance's eigenvalues are 1 / k^decay."""
    label_noise: float
    duplicates: float
    drop_pct: float
    """Planted."""
    runs: int
    resamples: int
    seed: int
    code: str
    """Digest of the code that was measured with."""
    f2_covered: OptionalCount
    difference_covered: OptionalCount
    drop_covered: OptionalCount
    alarms: OptionalCount
    """Runs whose whole interval of the drop lies above the verdict's threshold."""
    above_zero: OptionalCount
    """Runs whose whole interval of the drop lies above 0."""
    planted_f2: float
    """Of the base, with the true labels."""
    expected_f2: float
    """Of the base, with the labels as they are."""
    mean_f2: float
    mean_error_pct: float
    """100 (mean - expected) / expected."""
    mean_se_pct: float
    """Monte Carlo standard error of it."""

    def rate(self, counted: int | None) -> Rate:
        """A count as a share of the runs."""
        return Rate(0, 0) if counted is None else Rate(counted, self.runs)


def measured_code() -> str:
    """Digest of what a result depends on."""
    return source_digest("jobs/evaluate/metric", "jobs/calibrate/synthetic/running.py")


def is_of(result: SyntheticResult, cell: SyntheticCell, seed: int, code: str) -> bool:
    """Whether this line is of this cell, seed and code."""
    plant = cell.plant
    return (
        (result.group, result.n, result.share_unsafe, result.decay, result.label_noise, result.duplicates)
        == (cell.group, plant.n, plant.share_unsafe, plant.decay, plant.label_noise, plant.duplicates)
        and (result.drop_pct, result.runs, result.resamples) == (drop_pct(plant), cell.runs, cell.resamples)
        and (result.seed, result.code) == (seed, code)
    )


def finished_results(path: Path, cells: Sequence[SyntheticCell], seed: int, code: str) -> list[SyntheticResult | None]:
    """The line of every cell, None where there is none yet.

    Raises:
        InputError: the file has other columns, or a line that is no result.
    """
    lines = read_lines(path, SyntheticResult, "remove the line, and its plant is drawn again")
    return [next((line for line in lines if is_of(line, cell, seed, code)), None) for cell in cells]


def rewrite_results(path: Path, results: Sequence[SyntheticResult]) -> None:
    """Put exactly these lines into the file: the same results give the same bytes, whatever finished first."""
    scratch = path.with_suffix(".part")
    scratch.unlink(missing_ok=True)
    for result in results:
        append_line(scratch, result)
    scratch.replace(path)
