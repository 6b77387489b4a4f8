"""Draws and scores synthetic activations in a few processes."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import numpy as np

from jobs.calibrate.pool import run_tasks
from jobs.calibrate.synthetic.plans import ALARM_PCT, SyntheticCell, drop_pct
from jobs.calibrate.synthetic.results import SyntheticResult
from jobs.evaluate.metric.simulation import Coverage, measure_coverage, sample_f2, standard_error
from pipeline_common.logs import start_console

_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def run_synthetic(cells: Sequence[SyntheticCell], seed: int, code: str, processes: int) -> Iterator[SyntheticResult]:
    """Draw every cell; results come as they finish and do not depend on the number of processes.

    Args:
        cells: what to draw.
        seed: of everything.
        code: digest to write beside the numbers.
        processes: how many at a time; each uses one core.
    """
    for name in _THREADS:
        # Read by the processes when they import NumPy: more threads than cores would only wait for one another.
        os.environ.setdefault(name, "1")
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_start_process)
    try:
        # Dear ones first, so that no process is left alone with the last of them.
        by_cost = sorted(cells, key=lambda cell: -cell.runs * cell.plant.n**2 * max(cell.resamples, 1))
        yield from run_tasks(pool, partial(run_cell, seed=seed, code=code), by_cost, processes)
    finally:
        pool.shutdown()


def run_cell(cell: SyntheticCell, seed: int, code: str) -> SyntheticResult:
    """Draw one plant many times."""
    plant, stream = cell.plant, (seed, zlib.crc32(cell.name.encode()))
    expected = plant.expected_f2(plant.base_f2)
    coverage: Coverage | None = None
    if cell.resamples:
        coverage = measure_coverage(plant, cell.runs, cell.resamples, stream, ALARM_PCT)
        mean, se_pct = coverage.mean_f2, coverage.mean_f2_se_pct
    else:
        values = sample_f2(plant, cell.runs, stream)
        mean, se_pct = float(np.mean(values)), 100.0 * standard_error(values) / expected
    return SyntheticResult(
        group=cell.group,
        n=plant.n,
        share_unsafe=plant.share_unsafe,
        decay=plant.decay,
        label_noise=plant.label_noise,
        duplicates=plant.duplicates,
        drop_pct=drop_pct(plant),
        runs=cell.runs,
        resamples=cell.resamples,
        seed=seed,
        code=code,
        f2_covered=round(coverage.f2 * cell.runs) if coverage else None,
        difference_covered=round(coverage.difference * cell.runs) if coverage else None,
        drop_covered=round(coverage.drop_pct * cell.runs) if coverage else None,
        alarms=round(coverage.alarm * cell.runs) if coverage else None,
        above_zero=round(coverage.above_zero * cell.runs) if coverage else None,
        planted_f2=plant.base_f2,
        expected_f2=round(expected, 6),
        mean_f2=round(mean, 6),
        mean_error_pct=round(100.0 * (mean / expected - 1.0), 4),
        mean_se_pct=round(se_pct, 4),
    )


def _start_process() -> None:
    start_console("warning", "calibrate")
