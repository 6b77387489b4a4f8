"""The make targets and the script for kind; its tools are stubs that write down how they were called."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline_common.stages import REPOSITORY

SCRIPT = REPOSITORY / "docker" / "kind" / "kind.sh"
NEEDED = ("dirname", "grep", "head", "sleep", "sh")


def would_run(*arguments: str) -> str:
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    for name in ("PROFILE", "STAGE", "RUN", "ARGS"):
        outside.pop(name, None)
    done = subprocess.run(
        ["make", "--dry-run", *arguments], cwd=REPOSITORY, env=outside, capture_output=True, text=True, check=True
    )
    return " ".join(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["job", "STAGE=evaluate"], 'job --stage "evaluate"'),
        (["job", "STAGE=train", "PROFILE=tiny"], 'job --stage "train" --config tiny'),
        (
            ["job", "STAGE=train", "RUN=mine", "ARGS=train.max_steps=3"],
            'job --stage "train" --run-id mine train.max_steps=3',
        ),
        (["pipeline", "ARGS=--force"], "pipeline --force"),
        (["status"], "status"),
        (["logs"], 'logs --stage ""'),
        (["cancel", "RUN=0123abcd"], 'cancel --stage "" --run-id 0123abcd'),
    ],
)
def test_a_target_is_one_command(arguments, command):
    assert would_run(*arguments) == f"venv_FntngEval/bin/python -m jobs.pipeline.cluster {command}"


def kind(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", str(SCRIPT), *arguments],
        env={"PATH": str(folder), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def tools(tmp_path) -> Path:
    for name in NEEDED:
        found = shutil.which(name)
        assert found is not None
        (tmp_path / name).symlink_to(found)
    return tmp_path


def stub(folder: Path, name: str, script: str = "") -> None:
    path = folder / name
    path.write_text(f'#!/bin/sh\necho "{name} $*" >> {folder}/calls\n{script}\n')
    path.chmod(0o755)


def test_kind_up_says_at_once_what_is_missing(tools):
    done = kind(tools, "up", GPU="1")
    assert done.returncode == 2
    for missing in ("docker", "kind 0.27", "kubectl", "an NVIDIA driver, 580", "volume mount"):
        assert f"missing: {missing}" in done.stderr or missing in done.stderr
    assert "nothing was changed" in done.stderr
    assert not (tools / "calls").exists()


def test_an_old_driver_is_named(tools):
    for name in ("docker", "kind", "kubectl"):
        stub(tools, name)
    stub(tools, "nvidia-smi", "echo 570.86.10")
    done = kind(tools, "up", GPU="1")
    assert done.returncode == 2
    assert "NVIDIA driver 580 or newer for CUDA 13 (found 570.86.10)" in done.stderr


def test_kind_up_without_a_gpu_makes_the_cluster_once(tools):
    for name in ("docker", "kubectl"):
        stub(tools, name)
    stub(
        tools,
        "kind",
        f"case $1 in get) cat {tools}/clusters 2>/dev/null;; create) echo alignment > {tools}/clusters;; esac",
    )
    (tools / "cat").symlink_to(shutil.which("cat"))
    for _ in range(2):
        done = kind(tools, "up")
        assert done.returncode == 0, done.stderr
        assert "current context: kind-alignment" in done.stderr
    calls = (tools / "calls").read_text().splitlines()
    assert [call for call in calls if call.startswith("kind create")] == [
        "kind create cluster --config cpu.yaml --wait 120s"
    ]


def test_kind_load_copies_all_six_images(tools):
    for name in ("docker", "kubectl", "kind"):
        stub(tools, name)
    assert kind(tools, "load", TAG="v1").returncode == 0
    loads = [call for call in (tools / "calls").read_text().splitlines() if call.startswith("kind load")]
    assert loads[2] == "kind load docker-image alignment-pipeline-train:v1 --name alignment"
    assert len(loads) == 6
