"""python -m k8s.rendering: write the files people apply; --check compares them; --registry pins the images."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from k8s.rendering.files import ROOT, invalid_objects, pin_images, render_files, stale_files
from pipeline_common.cli import guard


def main() -> int:
    """Parse the command line, then render, check, or pin and render."""
    parser = argparse.ArgumentParser(prog="python -m k8s.rendering", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is stale or invalid")
    parser.add_argument("--registry", help="where the images were pushed, for example registry.example/me")
    parser.add_argument(
        "--metadata", type=Path, help='what the build wrote: {"train": {"containerimage.digest": "sha256:..."}, ...}'
    )
    arguments = parser.parse_args()
    if (arguments.registry is None) != (arguments.metadata is None):
        parser.error("--registry and --metadata go together")

    def work() -> int:
        if arguments.check:
            stale = stale_files(ROOT)
            for name in stale:
                sys.stderr.write(f"k8s/{name} is not what its overlay says; run `make render`\n")
            invalid = invalid_objects(ROOT)
            for line in invalid:
                sys.stderr.write(f"{line}\n")
            return 1 if stale or invalid else 0
        if arguments.registry is not None:
            pin_images(ROOT, arguments.registry, arguments.metadata)
        for name in render_files(ROOT):
            sys.stdout.write(f"k8s/{name}\n")
        return 0

    return guard("rendering", work)


if __name__ == "__main__":
    raise SystemExit(main())
