"""Build Dockerfile.gpu without a registry and run everything in it: `make image-check`.

    python3 docker/image_check [--base BASE.tar] [--torch cpu|cuda] [--work FOLDER] [--build-only]

The CUDA base is stood in for by a root file system of this machine's own distribution, and torch by its CPU build
unless --torch says otherwise; all else is as in the real images. Then, as a uid that no passwd file names, without
network, on a read-only root and with no capability: every target's --help, the `tiny` profile stage by stage, the
orchestrator's view of it, and SIGTERM.

Needs root, buildah, podman, runc and, unless --base is given, mmdebstrap; the package index, wheel folder and CA are
those that pip is set up with. Takes 6 GB of disk, with --torch cuda 20.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
from pathlib import Path

from building import build_all, prepare_base
from contents import check_declarations, check_nothing_left, inspect, report_sizes
from engine import REPOSITORY, TARGETS, TOOLS, CheckError, Engine, say
from running import run_everything


def main() -> int:
    """Build, look, run, and print what was measured."""
    parser = argparse.ArgumentParser(prog="python3 docker/image_check", description=__doc__.split("\n\n")[0])
    parser.add_argument("--base", type=Path, help="tar of a root file system to stand in for the CUDA base")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "output" / "image-check", help="storage, kept")
    parser.add_argument("--torch", choices=("cpu", "cuda"), default="cpu", help="which build of torch")
    parser.add_argument("--build-only", action="store_true", help="build and look; run nothing")
    arguments = parser.parse_args()
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing or os.geteuid() != 0:
        need = f"{', '.join(missing)} missing: apt-get install {' '.join(missing)}" if missing else "it needs root"
        say(f"{need}; image-check builds and runs images without a docker daemon or a registry")
        return 2
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    engine = Engine(work)
    try:
        origin = prepare_base(engine, arguments.base)
        build_all(engine, arguments.torch, origin)
        images = {target: inspect(engine, target) for target in TARGETS}
        report_sizes(engine, images)
        check_declarations(images)
        check_nothing_left(engine)
        if not arguments.build_only:
            run_everything(engine)
    except CheckError as error:
        say(f"FAILED: {error}")
        return 1
    finally:
        # Podman keeps its storage mounted on itself, and then nobody could delete the folder.
        subprocess.run(["umount", str(work / "root" / "overlay")], capture_output=True)
    say("passed")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
