"""What the finished images hold and say: sizes, declarations, nothing left of the build."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from engine import STAGES, VERSION, CheckError, Engine, image_name, say

STAGE_LIMIT_BYTES: Final = 10_000_000


def inspect(engine: Engine, target: str) -> dict[str, Any]:
    """Podman's description of the image."""
    description: list[dict[str, Any]] = json.loads(engine.podman("image", "inspect", image_name(target)))
    return description[0]


def report_sizes(engine: Engine, images: Mapping[str, Mapping[str, Any]]) -> None:
    """Print each image's layers; stage images must share all but a few bytes.

    Raises:
        CheckError: a stage adds more than 10 MB to the shared layers.
    """
    shared = set.intersection(*(set(images[stage]["RootFS"]["Layers"]) for stage in STAGES))
    for target in ("environment", "orchestrator"):
        say(f"layers of {target} ({images[target]['Size'] / 1e6:.0f} MB):")
        history: list[dict[str, Any]] = json.loads(
            engine.podman("history", "--no-trunc", "--format", "json", image_name(target))
        )
        for entry in reversed(history):
            if entry["size"] > 0:
                say(f"  {entry['size'] / 1e6:8.1f} MB  {' '.join(entry['CreatedBy'].split())[:100]}")
    common = min(images[stage]["Size"] for stage in STAGES)
    for stage in STAGES:
        own = [layer for layer in images[stage]["RootFS"]["Layers"] if layer not in shared]
        added = images[stage]["Size"] - common
        say(f"{stage}: {len(shared)} shared layers, {len(own)} of its own, {added / 1e6:.1f} MB more than the smallest")
        if added > STAGE_LIMIT_BYTES:
            raise CheckError(f"{stage} adds {added / 1e6:.1f} MB to what the stages share; the limit is 10 MB")


def check_declarations(images: Mapping[str, Mapping[str, Any]]) -> None:
    """User, entry point, volumes, labels and working folder, as the built image says them.

    Raises:
        CheckError: one of them is not as it must be.
    """
    for target, image in images.items():
        config = image["Config"]
        module = "pipeline" if target == "orchestrator" else target
        wanted = {
            "User": "10001:10001",
            "Entrypoint": ["/opt/venv_FntngEval/bin/python", "-m", f"jobs.{module}"],
            "WorkingDir": "/app",
        }
        found = {key: config.get(key) for key in wanted}
        if found != wanted:
            raise CheckError(f"{target}: {found}, expected {wanted}")
        volumes = {"/data"} if target == "orchestrator" else {"/data", "/model"}
        if set(config["Volumes"]) != volumes:
            raise CheckError(f"{target}: volumes {sorted(config['Volumes'])}, expected {sorted(volumes)}")
        labels = config["Labels"]
        if labels["org.opencontainers.image.version"] != VERSION:
            raise CheckError(f"{target}: labels {labels}")
    say("users, entry points, volumes and labels are as declared")


def check_nothing_left(engine: Engine) -> None:
    """No build secret in the images' files, settings or history.

    Raises:
        CheckError: a secret was found.
    """
    secrets = [file.read_text() for file in sorted((engine.work / "secrets").iterdir())]
    for target in ("environment", "orchestrator"):
        described = json.dumps(inspect(engine, target)) + engine.podman("history", "--no-trunc", image_name(target))
        root = Path(engine.podman("image", "mount", image_name(target)).strip())
        try:
            for secret in secrets:
                if secret in described:
                    raise CheckError(f"{target}: a build secret stands in the image's settings or history")
                places = ("opt", "app", "etc", "root", "run", "tmp", "var")
                found = subprocess.run(
                    ["grep", "-rIlF", "--", secret, *(str(root / place) for place in places)],
                    capture_output=True,
                    text=True,
                ).stdout.split()
                if found:
                    raise CheckError(f"{target}: a build secret stands in {found[:5]}")
            for unwanted in ("run/secrets/ca", "opt/uv/bin/uv", "build/install.sh", "var/cache/uv/CACHEDIR.TAG"):
                if (root / unwanted).exists():
                    raise CheckError(f"{target}: {unwanted} of the build is still there")
        finally:
            engine.podman("image", "unmount", image_name(target))
    say(f"none of {len(secrets)} build secrets, and nothing else of the build, is left in the images")
