"""Build Dockerfile.gpu without a registry and run everything in it: `make image-check`.

    python3 docker/image_check.py [--base BASE.tar] [--torch cpu|cuda] [--work FOLDER] [--build-only]

The CUDA base is stood in for by a root file system of this machine's own distribution, and torch by its CPU build
unless --torch says otherwise; all else is as in the real images. Then, as a uid that no passwd file names, without
network, on a read-only root and with no capability: every target's --help, the `tiny` profile stage by stage, the
orchestrator's view of it, and SIGTERM.

Needs root, buildah, podman, runc and, unless --base is given, mmdebstrap; the package index, wheel folder and CA are
those that pip is set up with. Takes 6 GB of disk, with --torch cuda 20.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

REPOSITORY: Final = Path(__file__).resolve().parent.parent
STAGES: Final = ("environment", "prepare", "train", "evaluate", "analyze")
# The orchestrator first: its one build passes through every layer that the others take from the cache.
TARGETS: Final = ("orchestrator", *STAGES)
TOOLS: Final = ("buildah", "podman", "runc")
STAND_IN: Final = "localhost/stand-in/base:check"
USER: Final = "54321:0"
STAGE_LIMIT_BYTES: Final = 10_000_000
ARGUMENTS: Final = ("--config", "tiny", "runtime.output_dir=/data/output")
IMAGE_DIGEST: Final = "sha256:" + hashlib.sha256(b"image-check").hexdigest()
WHEELS: Final = "/var/wheels"


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

    def run_flags(self, volumes: Path) -> list[str]:
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


def main() -> int:
    """Build, look, run, and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
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


def say(text: str) -> None:
    """One line of progress."""
    sys.stdout.write(f"image-check  {text}\n")
    sys.stdout.flush()


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
        "VERSION": "0.0.0-check",
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


def image_name(target: str) -> str:
    """Name of a target's image in the check's own storage."""
    return f"localhost/alignment-pipeline-{target}:check"


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
        if labels["org.opencontainers.image.version"] != "0.0.0-check":
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
    flags = engine.run_flags(volumes)
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
        if origin["image_digest"] != IMAGE_DIGEST or origin["version"] != "0.0.0-check" or not origin["commit"]:
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


if __name__ == "__main__":
    raise SystemExit(main())
