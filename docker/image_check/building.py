"""Builds every target on a base that stands in for CUDA's."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final

from engine import REPOSITORY, TARGETS, VERSION, CheckError, Engine, image_name, say

STAND_IN: Final = "localhost/stand-in/base:check"
WHEELS: Final = "/var/wheels"


def prepare_base(engine: Engine, base: Path | None) -> str:
    """Import the stand-in base, made of this machine's distribution unless given; what it came from."""
    tar = base or engine.work / "base.tar"
    if not tar.is_file():
        release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
        suite = release["VERSION_CODENAME"].strip('"')
        if base is not None or shutil.which("mmdebstrap") is None:
            raise CheckError(f"{tar} is missing; install mmdebstrap, or give --base with the tar of a root file system")
        say(f"making a base of {suite} (two minutes)")
        subprocess.run(["mmdebstrap", "--variant=minbase", suite, str(tar)], check=True, capture_output=True)
    origin = f"{tar.resolve()} {tar.stat().st_size} {tar.stat().st_mtime_ns}"
    record = engine.work / "base-from"
    known = STAND_IN in engine.podman("images", "--format", "{{.Repository}}:{{.Tag}}")
    if not (known and record.is_file() and record.read_text() == origin):
        engine.podman("import", "--quiet", str(tar), STAND_IN)
        record.write_text(origin)
    return origin


def build_all(engine: Engine, torch: str, origin: str) -> None:
    """Build every target; layers of an earlier check are used again only where all that installs is as it was.

    Buildah forgets what a build mounts when it looks into its cache, and some versions mount a stage that came from the
    cache as its bare base: so libraries are built in one go, or not at all.
    """
    inputs = [REPOSITORY / "Dockerfile.gpu", REPOSITORY / "docker" / "install.sh"]
    inputs += sorted((REPOSITORY / "docker" / "requirements").glob("*.txt"))
    digest = hashlib.sha256(
        b"".join([torch.encode(), origin.encode(), *(file.read_bytes() for file in inputs)])
    ).hexdigest()
    record = engine.work / "built-from"
    if not record.is_file() or record.read_text() != digest:
        record.unlink(missing_ok=True)
        kept = engine.podman("images", "--quiet", "--no-trunc", STAND_IN).split()
        images = set(engine.podman("images", "--all", "--quiet", "--no-trunc").split()) - set(kept)
        if images:
            engine.podman("rmi", "--force", *sorted(images))
    for target in TARGETS:
        build(engine, target, torch)
    record.write_text(digest)


def build(engine: Engine, target: str, torch: str) -> None:
    """Build one target; what an earlier target built is taken from the cache."""
    started = time.monotonic()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True).stdout.strip()
    values = {
        "BASE_IMAGE": STAND_IN,
        "ORCHESTRATOR_BASE_IMAGE": STAND_IN,
        "TORCH_BUILD": torch,
        "GIT_COMMIT": commit or "unknown",
        "GIT_DIRTY": "false",
        "VERSION": VERSION,
    }
    arguments = [part for name, value in values.items() for part in ("--build-arg", f"{name}={value}")]
    secrets, volumes = build_secrets(engine.work)
    engine.buildah(
        *("bud", "--format", "docker", "--layers", "--pull-never", "--file", "Dockerfile.gpu", "--target", target),
        *("--tag", image_name(target), *arguments, *secrets, *volumes, "."),
    )
    say(f"built {target} in {time.monotonic() - started:.0f} s")


def build_secrets(work: Path) -> tuple[list[str], list[str]]:
    """Flags that hand pip's set-up on this machine to the build: index, CA, and a folder of wheels."""
    folder = work / "secrets"
    folder.mkdir(mode=0o700, exist_ok=True)
    flags: list[str] = []
    volumes: list[str] = []
    index = os.environ.get("PIP_INDEX_URL", "")
    links = os.environ.get("PIP_FIND_LINKS", "")
    if links and Path(links).is_dir():
        volumes = ["--volume", f"{Path(links).resolve()}:{WHEELS}:ro"]
        links = WHEELS
    for name, value in (("index_url", index), ("find_links", links)):
        if value:
            (folder / name).write_text(value)
            flags += ["--secret", f"id={name},src={folder / name}"]
    authority = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE")
    if authority:
        flags += ["--secret", f"id=ca,src={authority}"]
    return flags, volumes
