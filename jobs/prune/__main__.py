"""python -m jobs.prune [--run RUN_ID] [--older-than DAYS] [--apply]: remove what no run refers to."""

from __future__ import annotations

import argparse
import sys

from pipeline_common.cli import guard


def main() -> int:
    """Parse the command line, say what would go, and remove it with --apply."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.prune",
        description="Remove artifacts and checkpoints that no run in the results database or the store refers to. "
        "Without --apply nothing is changed.",
        epilog="Exit codes: 0 done; 1 transient, try again; 2 configuration or usage; 3 no such run or database.",
    )
    parser.add_argument("--config", default="tiny", metavar="PROFILE_OR_FILE", help="for its output folder and store")
    parser.add_argument("overrides", nargs="*", metavar="section.field=value")
    parser.add_argument(
        "--run", action="append", default=[], metavar="RUN_ID", help="forget this run first; may be repeated"
    )
    parser.add_argument(
        "--older-than", type=_days, metavar="DAYS", help="forget all finished runs that were begun before so many days"
    )
    parser.add_argument(
        "--keep-days",
        type=_days,
        default=1.0,
        metavar="DAYS",
        help="what was written in the last so many days stays, whoever refers to it (default: 1)",
    )
    parser.add_argument("--apply", action="store_true", help="do it")

    def work() -> int:
        arguments = parser.parse_intermixed_args()
        from jobs.prune.choosing import plan_pruning
        from jobs.prune.removing import describe, remove
        from pipeline_common.config import load_config
        from pipeline_common.logs import start_console
        from pipeline_common.workplace import open_workplace

        config = load_config(arguments.config, arguments.overrides)
        start_console(config.runtime.log_level, "prune")
        place = open_workplace(config)
        pruning = plan_pruning(place, arguments.run, arguments.older_than, arguments.keep_days)
        sys.stdout.write(describe(place, pruning, apply=arguments.apply))
        if arguments.apply:
            sys.stdout.write(remove(place, pruning))
        return 0

    return guard("prune", work)


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not days >= 0:
        raise argparse.ArgumentTypeError(f"{text}: expected a number of days, 0 or more")
    return days


if __name__ == "__main__":
    raise SystemExit(main())
