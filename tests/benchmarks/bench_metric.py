"""CPU seconds and memory of all scores, intervals, diagnostics and tests of one pair, against a scikit-learn loop.

    python -m tests.benchmarks.bench_metric [--prompts 512] [--layers 33] [--width 4096] [--loop]

Without `--loop` it scores generated activations of the Llama-3-8B shape and ends. With it, the plain way (resample the
rows, call scikit-learn) is timed on a few resamples and its whole is extrapolated.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy is imported: waiting threads count as CPU seconds

import numpy as np

if TYPE_CHECKING:
    from tests.benchmarks.__main__ import Timing

PROMPTS: Final = 512
LAYERS: Final = 33
"""Entries of the layer axis: embeddings and 32 layers."""
WIDTH: Final = 4096
RESAMPLES: Final = 10_000
PERMUTATIONS: Final = 4_999
AXIOMS: Final = 7
COST_PROMPTS: Final = (128, 256, 512, 1024, 2048, 4096)
COST_WIDTHS: Final = (256, 1024, 4096)
COST_LAYERS: Final = 3
"""Embeddings and two layers: 4,096 prompts of 33 layers would not fit into the memory of a small machine."""


def generate(prompts: int, layers: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str], list[str]]:
    """Base and tuned activations [n, layers, D], labels, axioms and ids."""
    rng = np.random.default_rng(0)
    unsafe = np.arange(prompts) % 2 == 1
    base = np.empty((prompts, layers, width), dtype=np.float32)
    tuned = np.empty_like(base)
    for layer in range(layers):
        base[:, layer] = rng.standard_normal((prompts, width), dtype=np.float32)
        base[:, layer] += np.float32(0.05) * unsafe[:, np.newaxis]
        own = rng.standard_normal((prompts, width), dtype=np.float32)
        tuned[:, layer] = base[:, layer] + np.float32(0.3) * own
    axioms = [f"axiom {(place // 2) % AXIOMS}" for place in range(prompts)]
    return base, tuned, unsafe, axioms, [f"prompt-{place:06d}" for place in range(prompts)]


def score(prompts: int, layers: int, width: int) -> float:
    """CPU seconds of everything but making the activations."""
    from jobs.evaluate.metric.diagnostics import measure_pair

    data = generate(prompts, layers, width)
    before = time.process_time()
    scores, diagnostics = measure_pair(*data, resamples=RESAMPLES, permutations=PERMUTATIONS)
    spent = time.process_time() - before
    assert {found.status for found in scores} == {"ok"}
    assert all(layer.cka and layer.probe_auc_tuned for layer in diagnostics.layers)
    return spent


def loop(prompts: int, layers: int, width: int, tries: int = 3) -> float:
    """CPU seconds that the bootstrap alone would take by resampling rows and calling scikit-learn's CHI."""
    from sklearn.metrics import calinski_harabasz_score

    base, tuned, unsafe, _, _ = generate(prompts, 1, width)
    rng = np.random.default_rng(1)
    before = time.process_time()
    for _ in range(tries):
        drawn = rng.integers(0, prompts, prompts)
        for rows in (base[:, 0], tuned[:, 0]):
            calinski_harabasz_score(rows[drawn].astype(np.float64), unsafe[drawn])
    # Every layer, and once more for the scored representation; the axioms' own resamples are left out.
    return (time.process_time() - before) / tries * RESAMPLES * (layers + 1)


def bench() -> list[Timing]:
    """The bar's own size."""
    timing = time_alone(PROMPTS, LAYERS, WIDTH, "10 s CPU, 1536 MiB")
    sys.stderr.write(f"the bootstrap alone as a scikit-learn loop: {loop(PROMPTS, LAYERS, WIDTH):,.0f} s CPU\n")
    return [timing]


def cost_table() -> Iterator[str]:
    """Lines of a Markdown table: cost against n and D, beside the loop's."""
    yield f"| n | D | CPU s of {COST_LAYERS} layers | peak MiB | scikit-learn loop, CPU s | times |"
    yield "| ---: | ---: | ---: | ---: | ---: | ---: |"
    for prompts in COST_PROMPTS:
        for width in COST_WIDTHS:
            timing = time_alone(prompts, COST_LAYERS, width)
            plain = loop(prompts, COST_LAYERS, width)
            yield (
                f"| {prompts:,} | {width:,} | {timing.cpu_s:.2f} | {timing.peak_mib:,.0f} | {plain:,.0f} "
                f"| {plain / timing.cpu_s:,.0f} |"
            )


def time_alone(prompts: int, layers: int, width: int, limit: str = "") -> Timing:
    """One size in a process of its own, so that the memory is the metric's (the activations included).

    The CPU seconds are the metric's alone: those of the imports and of making the activations are left out.
    """
    from tests.benchmarks.__main__ import measure

    size = ("--prompts", str(prompts), "--layers", str(layers), "--width", str(width))
    name = f"metric, n = {prompts:,}, {layers} layers, D = {width:,}"
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "seconds"
        module = ("-m", "tests.benchmarks.bench_metric", "--report", str(report))
        timing = measure(name, limit, sys.executable, *module, *size)
        return replace(timing, cpu_s=float(report.read_text(encoding="utf-8")))


def main() -> None:
    """Score once and say what it cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=PROMPTS)
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--loop", action="store_true", help="time the scikit-learn loop too, extrapolated")
    parser.add_argument("--report", type=Path, help="file to write the CPU seconds into")
    given = parser.parse_args()
    spent = score(given.prompts, given.layers, given.width)
    print(f"scores, intervals, diagnostics, tests: {spent:.2f} s CPU")
    if given.report:
        given.report.write_text(str(spent), encoding="utf-8")
    if given.loop:
        print(f"scikit-learn loop, bootstrap only: {loop(given.prompts, given.layers, given.width):,.0f} s CPU")


if __name__ == "__main__":
    main()
