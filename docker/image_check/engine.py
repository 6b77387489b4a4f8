"""buildah and podman on a storage of their own, and what every part of the check shares."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[2]
STAGES: Final = ("environment", "prepare", "train", "evaluate", "analyze")
# The orchestrator first: its one build passes through every layer that the others take from the cache.
TARGETS: Final = ("orchestrator", *STAGES)
TOOLS: Final = ("buildah", "podman", "runc")
VERSION: Final = "0.0.0-check"


class CheckError(Exception):
    """Something an image must do, and does not."""


@dataclass(frozen=True)
class Engine:
    """buildah and podman on a storage of their own."""

    work: Path

    def podman(self, *arguments: str, check: bool = True) -> str:
        """Run podman; its output."""
        return self._run("podman", ["--cgroup-manager", "cgroupfs", "--runtime", "runc"], arguments, check=check)

    def buildah(self, *arguments: str) -> str:
        """Run buildah; its output."""
        return self._run("buildah", [], arguments, check=True)

    def _run(self, tool: str, more: Sequence[str], arguments: Sequence[str], *, check: bool) -> str:
        storage = ["--root", f"{self.work}/root", "--runroot", f"{self.work}/run", "--storage-driver", "overlay"]
        (self.work / "tmp").mkdir(exist_ok=True)
        environment = {**os.environ, "BUILDAH_ISOLATION": "chroot", "TMPDIR": f"{self.work}/tmp"}
        done = subprocess.run(
            [tool, *storage, *more, *arguments], env=environment, cwd=REPOSITORY, capture_output=True, text=True
        )
        if check and done.returncode != 0:
            tail = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
            raise CheckError(f"{tool} {' '.join(arguments)} ended with {done.returncode}:\n{tail}")
        return done.stdout + (done.stderr if check is False else "")


def say(text: str) -> None:
    """One line of progress."""
    sys.stdout.write(f"image-check  {text}\n")
    sys.stdout.flush()


def image_name(target: str) -> str:
    """Name of a target's image in the check's own storage."""
    return f"localhost/alignment-pipeline-{target}:check"
