"""What the machine, the stores and the installed packages are like: one check each, no model libraries.

A check never raises for what it looks for: it says ok, degraded (runs, in a lesser way) or failed, with the fix, so
that everything wrong is told at once.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal

from packaging.requirements import Requirement

from pipeline_common import provenance
from pipeline_common.artifacts import ArtifactStore
from pipeline_common.config import Config
from pipeline_common.database import HEAD_REVISION, Database
from pipeline_common.errors import ConfigError, InputError, PipelineError, TransientError

LOCK_FILE: Final = provenance.REPOSITORY / "docker" / "requirements" / "runtime.txt"
_GIB: Final = 1 << 30


@dataclass(frozen=True)
class Check:
    """One finding. `error` is the class that a failed check raises in the end."""

    name: str
    status: Literal["ok", "degraded", "failed"]
    detail: str
    fix: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    error: type[PipelineError] = InputError

    def to_json(self) -> dict[str, Any]:
        """Everything but the error class."""
        return {name: value for name, value in asdict(self).items() if name != "error"}


def check_machine(config: Config, output: Path) -> list[Check]:
    """Free disk and memory against what the profile needs."""
    needs = config.environment
    free_disk = shutil.disk_usage(output).free / _GIB
    memory = total_memory_bytes() / _GIB
    checks = []
    for name, have, need, fix in (
        ("disk", free_disk, needs.min_free_disk_gib, f"free some room below {output}, or move runtime.output_dir"),
        ("memory", memory, needs.min_memory_gib, "use a machine (or a container limit) with more memory"),
    ):
        enough = have >= need
        detail = f"{have:.1f} GiB, the profile needs {need:.1f} GiB"
        checks.append(Check(name, "ok" if enough else "failed", detail, "" if enough else fix, {"gib": round(have, 1)}))
    return checks


def total_memory_bytes() -> int:
    """Memory of the machine, or the container's limit where that is smaller."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        return min(total, int(text))
    return total


def check_packages() -> Check:
    """Installed versions against the lock."""
    locked = locked_versions()
    drift = {
        name: {"locked": version, "installed": provenance.installed_version(name)}
        for name, version in locked.items()
        if provenance.installed_version(name) != version
    }
    torch = provenance.installed_version("torch")
    if torch is None:
        return Check("packages", "failed", "torch is not installed", "make setup", {"drift": drift}, ConfigError)
    facts = {"locked": len(locked), "torch": torch, "drift": drift}
    if drift:
        names = ", ".join(
            f"{name} {found['installed']} (lock: {found['locked']})" for name, found in sorted(drift.items())
        )
        return Check(
            "packages", "degraded", f"{len(drift)} of {len(locked)} differ from the lock: {names}", "make setup", facts
        )
    return Check("packages", "ok", f"all {len(locked)} locked packages at their versions, torch {torch}", facts=facts)


def locked_versions() -> dict[str, str]:
    """Package -> version of every line of the lock whose marker holds here."""
    versions: dict[str, str] = {}
    for line in LOCK_FILE.read_text(encoding="utf-8").splitlines():
        if line[:1].isalnum():
            requirement = Requirement(line.rstrip(" \\"))
            if requirement.marker is None or requirement.marker.evaluate():
                versions[requirement.name] = str(requirement.specifier).removeprefix("==")
    return versions


def installed_requirements(drift: Mapping[str, Mapping[str, str | None]]) -> str:
    """A requirements file of what is installed, led by what differs from the lock."""
    head = [
        f"# {name}: the lock says {found['locked']}, installed is {found['installed']}"
        for name, found in sorted(drift.items())
    ]
    if not head:
        head = ["# No difference from the lock."]
    installed = sorted({f"{dist.metadata['Name']}=={dist.version}" for dist in metadata.distributions()}, key=str.lower)
    return "\n".join([*head, *installed]) + "\n"


def check_store(store: ArtifactStore) -> Check:
    """Put, read and delete one small object."""
    key = f"probes/{uuid.uuid4().hex}"
    content = key.encode()
    try:
        store.put_bytes(key, content)
        read = store.get_bytes(key)
        store.delete(key)
    except OSError as error:
        return Check(
            "artifact store",
            "failed",
            f"{store.uri}: {error}",
            "check ARTIFACTS_URI and its permissions",
            error=ConfigError,
        )
    except PipelineError as error:
        return Check("artifact store", "failed", str(error), "check ARTIFACTS_URI", error=type(error))
    if read != content:
        detail = f"{store.uri} gave back {len(read or b'')} bytes of {len(content)}"
        return Check(
            "artifact store", "failed", detail, "this store does not keep what it is given", error=TransientError
        )
    return Check("artifact store", "ok", f"put, read and delete at {store.uri}")


def check_database(database: Database) -> Check:
    """Reachable, and at the schema this code writes."""
    try:
        revision = database.revision()
    except TransientError as error:
        return Check("database", "failed", str(error), "check DATABASE_URL and the server", error=TransientError)
    if revision != HEAD_REVISION:
        detail = f"{database.shown_url} has schema {revision}, this code writes {HEAD_REVISION}"
        return Check("database", "failed", detail, "use the code that made it, or another database")
    return Check("database", "ok", f"{database.shown_url} at schema {revision}", facts={"revision": revision})


def raise_failures(checks: list[Check]) -> None:
    """Tell every failed check at once.

    Raises:
        PipelineError: of the class that says most about retrying: configuration before input before transient.
    """
    failed = [check for check in checks if check.status == "failed"]
    if not failed:
        return
    lines = "\n".join(f"  - {check.name}: {check.detail}" + (f"; {check.fix}" if check.fix else "") for check in failed)
    kinds = {check.error for check in failed}
    kind = next(entry for entry in (ConfigError, InputError, TransientError) if entry in kinds)
    raise kind(f"{len(failed)} check(s) of this machine failed:\n{lines}")
