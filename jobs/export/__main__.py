"""python -m jobs.export [--run RUN_ID] [--to FILE]: the results database as one SQLite file that any tool opens."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipeline_common.cli import guard


def main() -> int:
    """Parse the command line and write the file."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.export",
        description="The results database (DATABASE_URL, or the embedded one) as one SQLite file.",
        epilog="Exit codes: 0 done; 1 transient, try again; 2 configuration or usage; 3 no such database or run.",
    )
    parser.add_argument("--config", default="tiny", metavar="PROFILE_OR_FILE", help="for its output folder")
    parser.add_argument("overrides", nargs="*", metavar="section.field=value")
    parser.add_argument(
        "--run", action="append", metavar="RUN_ID", help="only this run; may be repeated (default: all)"
    )
    parser.add_argument("--to", type=Path, metavar="FILE", help="default: <runtime.output_dir>/centralized.db")
    arguments = parser.parse_intermixed_args()

    def work() -> int:
        from pipeline_common.config import load_config
        from pipeline_common.logs import start_console

        config = load_config(arguments.config, arguments.overrides)
        start_console(config.runtime.log_level, "export")

        from pipeline_common.errors import InputError
        from pipeline_common.sqlite_export import export_sqlite
        from pipeline_common.workplace import open_workplace

        place = open_workplace(config)
        name = place.database.engine.url.database
        if place.database.embedded and not (name and Path(name).exists()):
            raise InputError(f"there is no database {place.database.shown_url} yet; run the pipeline first (make run)")
        target = (arguments.to or place.output / "centralized.db").resolve()
        counts = export_sqlite(place.database, target, arguments.run)
        told = ", ".join(f"{count} {table}" for table, count in counts.items())
        sys.stdout.write(f"{target}: {told}\n")
        return 0

    return guard("export", work)


if __name__ == "__main__":
    raise SystemExit(main())
