"""Where a result comes from: commit, versions, machine, command. Shown in every manifest and report."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from pipeline_common.driver import list_gpus

REPOSITORY: Final = Path(__file__).resolve().parent.parent
_REQUIREMENTS: Final = REPOSITORY / "docker" / "requirements"


def now() -> str:
    """The present moment in UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@cache
def package_versions() -> dict[str, str]:
    """Installed version of every direct dependency (`missing` where it is not installed).

    The image that only starts the stages holds few of them; STAGE_PACKAGES names a file, made with the images, of what
    the stages will find. Without it both would plan different artifacts.
    """
    if file := os.environ.get("STAGE_PACKAGES"):
        versions: dict[str, str] = json.loads(Path(file).read_text(encoding="utf-8"))
        return versions
    names = direct_requirements()
    return {name: installed_version(name) or "missing" for name in names}


def direct_requirements() -> list[str]:
    """Names in runtime.in and torch.in, sorted."""
    names = set()
    for file in ("runtime.in", "torch.in"):
        for line in (_REQUIREMENTS / file).read_text(encoding="utf-8").splitlines():
            match = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line)
            if match:
                names.add(match.group().lower())
    return sorted(names)


def installed_version(name: str) -> str | None:
    """Version of an installed distribution, None when it is absent."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


@cache
def commit() -> dict[str, Any]:
    """The commit of the code: from git, or from GIT_COMMIT in an image that carries no repository."""
    if os.environ.get("GIT_COMMIT"):
        return {"commit": os.environ["GIT_COMMIT"], "dirty": os.environ.get("GIT_DIRTY") == "true"}
    if shutil.which("git") is None or not (REPOSITORY / ".git").exists():
        return {"commit": None, "dirty": None}
    head = _git("rev-parse", "--verify", "-q", "HEAD")
    return {"commit": head or None, "dirty": bool(_git("status", "--porcelain"))}


@cache
def version() -> str:
    """The project's version: of pyproject.toml, or from PIPELINE_VERSION in an image, which carries no such file."""
    if named := os.environ.get("PIPELINE_VERSION"):
        return named
    import tomllib

    file = REPOSITORY / "pyproject.toml"
    if not file.is_file():
        return "unknown"
    return str(tomllib.loads(file.read_text(encoding="utf-8"))["project"]["version"])


def _git(*arguments: str) -> str:
    # safe.directory: a mounted checkout may belong to another user than the one that reads it.
    command = ["git", "-c", f"safe.directory={REPOSITORY}", "-C", str(REPOSITORY), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def describe_machine() -> dict[str, Any]:
    """Python, operating system, processor, GPUs, and why these are not known (`gpus_error`, None where they are)."""
    listed = list_gpus()
    return {
        "python": platform.python_version(),
        "os": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "gpus": [dict(gpu) for gpu in listed.gpus],
        "gpus_error": listed.error,
    }


def image_digest() -> str | None:
    """The image that this process runs in, as its Job's manifest names it; None outside of images."""
    return os.environ.get("IMAGE_DIGEST")


def command() -> list[str]:
    """This process's command line as it can be typed again on any machine: the module instead of its file."""
    module = sys.modules["__main__"].__spec__
    if module is None:
        return [Path(sys.argv[0]).name, *sys.argv[1:]]
    return ["python", "-m", module.name.removesuffix(".__main__"), *sys.argv[1:]]


def collect(started: str, attempt: int) -> dict[str, Any]:
    """The provenance block of a manifest."""
    return {
        **commit(),
        "version": version(),
        "image_digest": image_digest(),
        "argv": command(),
        "packages": package_versions(),
        "machine": describe_machine(),
        "started": started,
        "ended": now(),
        "attempt": attempt,
    }
