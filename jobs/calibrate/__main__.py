"""python -m jobs.calibrate [--bases 3 --seeds 10 --jobs N]: plant damage in the embedded model, count what is found.

With --synthetic: plant it in synthetic activations, and measure coverage, bias, false alarms and power of the metric.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from jobs.calibrate.cells import PROFILE, check_kinds, plan_cells
from pipeline_common.cli import guard


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run what is not finished, write table and figure."""
    words = list(sys.argv[1:] if argv is None else argv)
    arguments = build_parser().parse_intermixed_args(words)
    work = calibrate_synthetic if arguments.synthetic else calibrate
    return guard("calibrate", lambda: work(arguments, words))


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.calibrate",
        description="Fine-tunes the embedded model on rows with known damage, and on harmless ones, through the real "
        "stages, and counts what the verdict says. A fine-tune whose line is in results.csv is not run again. "
        "Each takes some 10 CPU seconds, a base model 45.",
    )
    parser.add_argument("--bases", type=_positive, default=3, help="how many base models (default 3)")
    parser.add_argument("--first-base", type=int, default=1, help="seed of the first of them (default 1)")
    parser.add_argument("--seeds", type=_positive, default=10, help="fine-tunes of each base and kind (default 10)")
    parser.add_argument("--first-seed", type=int, default=0, help="seed of the first of them (default 0)")
    parser.add_argument("--kinds", nargs="+", default=[], metavar="KIND", help="only these kinds of rows")
    parser.add_argument("--jobs", type=_positive, default=1, help="processes, one core each (default 1)")
    parser.add_argument("--output", type=Path, default=Path("output/calibration"), help="folder of the results")
    parser.add_argument("--dry-run", action="store_true", help="list the fine-tunes that would be run; do nothing")
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="section.field=value",
        dest="settings",
        help=f"settings that differ from the profile {PROFILE}",
    )
    synthetic = parser.add_argument_group("synthetic activations, in place of the embedded model")
    synthetic.add_argument(
        "--synthetic",
        action="store_true",
        help="measure coverage, bias, false alarms and power on activations with a planted answer; only the options "
        "--jobs, --output, --dry-run and those below count",
    )
    synthetic.add_argument("--runs", type=_several, default=1000, help="draws of each plant (default 1000)")
    synthetic.add_argument("--resamples", type=_several, default=1000, help="of every interval (default 1000)")
    synthetic.add_argument("--seed", type=int, default=0, help="of all draws (default 0)")
    return parser


def calibrate(arguments: argparse.Namespace, words: Sequence[str]) -> int:
    """Run, tally, write."""
    from jobs.calibrate.results import append_result, pending_cells, read_results
    from pipeline_common.config import load_config
    from pipeline_common.logs import get_logger, start_console
    from pipeline_common.progress import track

    log = get_logger("calibrate")
    start_console("info", "calibrate")
    load_config(PROFILE, arguments.settings)
    output = arguments.output.expanduser().resolve()
    settings = " ".join(arguments.settings)
    cells = plan_cells(
        range(arguments.first_base, arguments.first_base + arguments.bases),
        check_kinds(arguments.kinds),
        range(arguments.first_seed, arguments.first_seed + arguments.seeds),
    )
    path = output / "results.csv"
    pending = pending_cells(cells, read_results(path), settings)
    if arguments.dry_run:
        sys.stdout.write("".join(f"{cell.name}\n" for cell in pending))
        return 0
    log.info("%d fine-tunes, %d of them finished; results go to %s", len(cells), len(cells) - len(pending), path)
    if pending:
        from pipeline_common.termination import StopSignal

        # SIGTERM lets the fine-tunes that run end, starts no other, and leaves with the code that asks for a new start.
        StopSignal().install()
        from jobs.calibrate.running import run_cells

        with track("fine-tunes", len(pending)) as advance:
            for done, result in enumerate(run_cells(pending, output, arguments.settings, arguments.jobs), start=1):
                append_result(path, result)
                log.info("%s: %s%s", result.cell.name, result.verdict, f" ({result.path})" if result.path else "")
                advance(done)
    write_report(output, settings, shlex.join(["python", "-m", "jobs.calibrate", *words]))
    return 0


def calibrate_synthetic(arguments: argparse.Namespace, words: Sequence[str]) -> int:
    """Draw what is not finished, write table and figure."""
    from jobs.calibrate.lines import append_line
    from jobs.calibrate.synthetic.figure import draw_synthetic
    from jobs.calibrate.synthetic.plans import plan_synthetic
    from jobs.calibrate.synthetic.results import FILE, finished_results, measured_code, rewrite_results
    from jobs.calibrate.synthetic.running import run_synthetic
    from jobs.calibrate.synthetic.table import write_synthetic
    from pipeline_common.logs import get_logger, start_console
    from pipeline_common.progress import track
    from pipeline_common.termination import StopSignal

    log = get_logger("calibrate")
    start_console("info", "calibrate")
    output = arguments.output.expanduser().resolve()
    path = output / FILE
    cells = plan_synthetic(arguments.runs, arguments.resamples)
    code = measured_code()
    found = finished_results(path, cells, arguments.seed, code)
    pending = [cell for cell, result in zip(cells, found, strict=True) if result is None]
    if arguments.dry_run:
        sys.stdout.write("".join(f"{cell.name}\n" for cell in pending))
        return 0
    log.info("%d plants, %d of them finished; results go to %s", len(cells), len(cells) - len(pending), path)
    StopSignal().install()
    with track("plants", len(pending)) as advance:
        results = run_synthetic(pending, arguments.seed, code, arguments.jobs)
        for done, result in enumerate(results if pending else (), start=1):
            append_line(path, result)
            advance(done)
    finished = [result for result in finished_results(path, cells, arguments.seed, code) if result is not None]
    rewrite_results(path, finished)
    table = write_synthetic(finished, shlex.join(["python", "-m", "jobs.calibrate", *words]))
    (output / "synthetic.md").write_text(table, encoding="utf-8")
    draw_synthetic(finished).write(output)
    sys.stdout.write(table)
    return 0


def write_report(output: Path, settings: str, command: str) -> None:
    """Table and figure of everything measured under these settings, into `output`; the table to stdout too."""
    from jobs.calibrate.figure import draw_calibration
    from jobs.calibrate.results import read_results
    from jobs.calibrate.table import write_table
    from jobs.calibrate.tallies import tally

    results = [result for result in read_results(output / "results.csv") if result.settings == settings]
    calibration = tally(results)
    table = write_table(calibration, command)
    (output / "calibration.md").write_text(table, encoding="utf-8")
    draw_calibration(calibration).write(output)
    sys.stdout.write(table)


def _positive(text: str) -> int:
    return _at_least(1, text)


def _several(text: str) -> int:
    return _at_least(2, text)


def _at_least(least: int, text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, came {text!r}")
    return int(text)


if __name__ == "__main__":
    raise SystemExit(main())
