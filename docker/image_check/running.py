"""Runs everything in the images as a pod of the cluster would."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from engine import STAGES, TARGETS, VERSION, CheckError, Engine, image_name, say

USER: Final = "54321:0"
ARGUMENTS: Final = ("--config", "tiny", "runtime.output_dir=/data/output")
IMAGE_DIGEST: Final = "sha256:" + hashlib.sha256(b"image-check").hexdigest()


def run_flags(volumes: Path) -> list[str]:
    """How a pod of the cluster would run the image."""
    return [
        *(
            "--user",
            USER,
            "--network",
            "none",
            "--read-only",
            "--read-only-tmpfs=false",
            "--tmpfs",
            "/tmp:mode=1777",
        ),
        *("--cap-drop", "all", "--security-opt", "no-new-privileges", "--no-healthcheck"),
        # Podman's own limits are above what an unprivileged machine may set.
        *("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"),
        *("--volume", f"{volumes}/data:/data", "--volume", f"{volumes}/model:/model"),
        *("--env", f"IMAGE_DIGEST={IMAGE_DIGEST}"),
    ]


def run_everything(engine: Engine) -> None:
    """Every --help, the tiny profile, the orchestrator's plan, SIGTERM.

    Raises:
        CheckError: one of them does not do what it must.
    """
    volumes = engine.work / "volumes"
    shutil.rmtree(volumes, ignore_errors=True)
    for name in ("data", "model"):
        (volumes / name).mkdir(parents=True)
        os.chown(volumes / name, int(USER.split(":")[0]), 0)
    flags = run_flags(volumes)
    for target in TARGETS:
        started = time.monotonic()
        text = engine.podman("run", "--rm", *flags, image_name(target), "--help")
        if "usage: python -m jobs." not in text:
            raise CheckError(f"{target} --help said {text[:300]!r}")
        say(f"{target} --help in {time.monotonic() - started:.1f} s")
    check_writable(engine, flags)
    for stage in STAGES:
        started = time.monotonic()
        engine.podman("run", "--rm", *flags, image_name(stage), *ARGUMENTS)
        say(f"{stage} of the tiny profile in {time.monotonic() - started:.0f} s")
    check_results(volumes / "data" / "output")
    plan = engine.podman("run", "--rm", *flags, image_name("orchestrator"), *ARGUMENTS, "--explain")
    if plan.count("cached as") != len(STAGES):
        raise CheckError(f"the orchestrator does not find the stages' artifacts:\n{plan}")
    say("the orchestrator finds all five artifacts")
    check_signal(engine, flags)


def check_writable(engine: Engine, flags: Sequence[str]) -> None:
    """An unknown uid of group 0 may write to the image's own volumes and /tmp, and nowhere else.

    Raises:
        CheckError: too much or too little may be written.
    """
    bare = [part for part in flags if not part.endswith((":/data", ":/model")) and part != "--volume"]
    tries = (
        "for place in /data /model /tmp /app /opt / /root /var/tmp; do touch $place/x 2>/dev/null && echo $place; done"
    )
    shell = ["--entrypoint", "/bin/sh", image_name("train"), "-c", f"{tries}; true"]
    found = engine.podman("run", "--rm", *bare, *shell).split()
    if found != ["/data", "/model", "/tmp"]:
        raise CheckError(f"uid {USER} may write to {found}, expected /data, /model and /tmp")
    say("an unknown uid may write to /data, /model and /tmp, and nowhere else")


def check_results(output: Path) -> None:
    """The report is there, and manifests name the image.

    Raises:
        CheckError: a file or a fact is missing.
    """
    if not (output / "latest" / "analyze" / "report.html").is_file():
        raise CheckError("analyze left no report.html")
    for stage in STAGES:
        manifest = json.loads((output / "latest" / stage / "manifest.json").read_text())
        origin = manifest["provenance"]
        if origin["image_digest"] != IMAGE_DIGEST or origin["version"] != VERSION or not origin["commit"]:
            raise CheckError(f"the manifest of {stage} does not name its image: {origin}")
    say("a report, and five manifests that name commit, version and image")


def check_signal(engine: Engine, flags: Sequence[str]) -> None:
    """SIGTERM to the container's first process stops a stage with its state saved: exit code 143.

    Raises:
        CheckError: another exit code.
    """
    name = "alignment-image-check-signal"
    engine.podman("rm", "--force", "--ignore", name, check=False)
    engine.podman(*("run", "--detach", "--name", name, *flags, image_name("train"), *ARGUMENTS, "train.max_steps=5000"))
    deadline = time.monotonic() + 120
    while "step" not in engine.podman("logs", name, check=False):
        if time.monotonic() > deadline:
            raise CheckError(f"train said nothing of a step:\n{engine.podman('logs', name, check=False)}")
        time.sleep(1)
    started = time.monotonic()
    engine.podman("kill", "--signal", "TERM", name)
    code = engine.podman("wait", name).strip()
    if code != "143":
        raise CheckError(f"train ended with {code} after SIGTERM:\n{engine.podman('logs', name, check=False)}")
    engine.podman("rm", "--force", name)
    say(f"SIGTERM ends train with 143 after {time.monotonic() - started:.1f} s")
