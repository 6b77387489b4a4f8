"""python -m jobs.export [--run RUN_ID] [--to FILE]: the results database as one SQLite file that any tool opens.

With --merged FOLDER --run RUN_ID: that run's tuned model as one plain model instead.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_common.cli import guard

if TYPE_CHECKING:
    from pipeline_common.config import Config


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
    parser.add_argument(
        "--merged",
        type=Path,
        metavar="FOLDER",
        help="in place of the database: the tuned model of the one --run, adapter and dequantised base merged",
    )
    arguments = parser.parse_intermixed_args()
    if arguments.merged is not None and (len(arguments.run or []) != 1 or arguments.to is not None):
        parser.error("--merged takes exactly one --run, and no --to")

    def work() -> int:
        from pipeline_common.config import load_config
        from pipeline_common.logs import start_console

        config = load_config(arguments.config, arguments.overrides)
        start_console(config.runtime.log_level, "export")

        if arguments.merged is not None:
            return merge(config, arguments.run[0], arguments.merged)

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


def merge(config: Config, run_id: str, target: Path) -> int:
    """Write the merged model, say what merging changed."""
    from jobs.export.merged import export_merged, tell_effect
    from pipeline_common.cli import set_process_defaults
    from pipeline_common.logs import quiet_libraries
    from pipeline_common.workplace import open_workplace

    quiet_libraries()
    # Everything is on this machine or in the store; PEFT would ask the hub for the base's configuration.
    os.environ["HF_HUB_OFFLINE"] = "1"
    set_process_defaults(config)
    folder = target.expanduser().resolve()
    facts = export_merged(open_workplace(config), run_id, folder)

    from pipeline_common.gpu.merging import MergeEffect

    sys.stdout.write(f"{folder}\n{tell_effect(MergeEffect.model_validate(facts['effect']))}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
