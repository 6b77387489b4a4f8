"""python -m jobs.schemas [--check]: write docs/schema/ from the code, or say which of its files is not what it says."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipeline_common.cli import guard


def main() -> int:
    """Parse the command line, write or compare."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.schemas",
        description="The JSON Schemas of the configuration and of summary.json, from the code.",
        epilog="Exit codes: 0 done; 1 a file is not what the code says.",
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is stale")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="default: docs/schema of this checkout")
    arguments = parser.parse_args()

    def work() -> int:
        from jobs.schemas.documents import FOLDER, stale_schemas, write_schemas

        folder = arguments.to or FOLDER
        if not arguments.check:
            for name in write_schemas(folder):
                sys.stdout.write(f"{folder / name}\n")
            return 0
        stale = stale_schemas(folder)
        for name in stale:
            sys.stderr.write(f"{folder / name} is not what the code says; run `make render`\n")
        return 1 if stale else 0

    return guard("schemas", work)


if __name__ == "__main__":
    raise SystemExit(main())
