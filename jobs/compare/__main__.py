"""python -m jobs.compare [--run RUN_ID --run RUN_ID ...]: rank several fine-tunes of one base in one report."""

from __future__ import annotations

import argparse
import sys

from pipeline_common.cli import guard


def main() -> int:
    """Parse the command line, compare, write the report."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.compare",
        description="Several finished fine-tunes of one base, measured on the same prompts, ranked in one report.",
        epilog="Exit codes: 0 done; 1 transient, try again; 2 configuration or usage; 3 no such runs, or runs that "
        "cannot be compared.",
    )
    parser.add_argument("--config", default="tiny", metavar="PROFILE_OR_FILE", help="for its output folder and stores")
    parser.add_argument("overrides", nargs="*", metavar="section.field=value")
    parser.add_argument(
        "--run",
        action="append",
        metavar="RUN_ID",
        help="a finished run; repeat it for each (default: all finished runs of the newest one's base)",
    )
    arguments = parser.parse_intermixed_args()

    def work() -> int:
        from pipeline_common.config import load_config
        from pipeline_common.logs import start_console

        config = load_config(arguments.config, arguments.overrides)
        start_console(config.runtime.log_level, "compare")

        from jobs.compare.comparison import compare_runs
        from jobs.compare.report import write_comparison
        from jobs.compare.runs import choose_runs, read_runs
        from pipeline_common.workplace import open_workplace

        place = open_workplace(config)
        chosen = read_runs(place, arguments.run) if arguments.run else choose_runs(place)
        comparison = compare_runs(chosen.runs, chosen.left_out)
        folder = write_comparison(comparison, place.output / "comparisons" / comparison.digest)
        for run in comparison.runs:
            sys.stdout.write(f"{run.rank}. {run.run_id}: {run.verdict}\n")
        sys.stdout.write(f"{folder / 'comparison.html'}\n")
        return 0

    return guard("compare", work)


if __name__ == "__main__":
    raise SystemExit(main())
