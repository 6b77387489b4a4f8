"""A full disk, a folder that cannot be written, a hub that may not be asked: in a mount namespace of the test's own."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline_common.stages import REPOSITORY
from tests.pipeline.walking import clean_environment


def run_on_tmpfs(
    mount_point: Path, options: str, command: list[str], **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command that finds a fresh tmpfs at `mount_point`; nobody else sees the mount."""
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    script = f"mount -t tmpfs -o {options} tmpfs {shlex.quote(str(mount_point))} && exec {shlex.join(command)}"
    return subprocess.run(
        [*namespace, "sh", "-c", script],
        cwd=REPOSITORY,
        env={**clean_environment(), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def stage_command(stage: str, output: Path, *overrides: str) -> list[str]:
    return [sys.executable, "-m", f"jobs.{stage}", "--config", "tiny", f"runtime.output_dir={output}", *overrides]


@pytest.fixture
def mount_point(tmp_path):
    folder = tmp_path / "mounted"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("room", ["size=16k", "size=160k"])
def test_a_full_disk_is_said_and_leaves_nothing_half_written(walks, mount_point, room):
    store = walks.tiny.output / "artifacts"
    before = sorted(store.rglob("manifest.json"))
    command = stage_command("prepare", mount_point, f"artifacts.uri={store}", "prepare.seed=5")
    done = run_on_tmpfs(mount_point, room, command)
    assert done.returncode == 1, done.stderr
    assert "the disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(store.rglob("manifest.json")) == before


def test_a_read_only_output_folder_is_said(mount_point):
    done = run_on_tmpfs(mount_point, "ro", stage_command("environment", mount_point / "output"))
    assert done.returncode == 2, done.stderr
    assert "runtime.output_dir" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_read_only_artifact_store_is_said_among_the_checks(mount_point, tmp_path):
    command = stage_command("environment", tmp_path / "output", f"artifacts.uri={mount_point}/store")
    done = run_on_tmpfs(mount_point, "ro", command)
    assert done.returncode == 2, done.stderr
    assert "artifact store" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_hub_model_while_offline_is_exit_3_and_says_what_to_do(tmp_path):
    command = [
        *(sys.executable, "-m", "jobs.environment", "--config", "smollm"),
        *("runtime.offline=true", "environment.min_memory_gib=0", "environment.min_free_disk_gib=0"),
        f"runtime.output_dir={tmp_path}/output",
    ]
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        env={**clean_environment(), "HF_HOME": str(tmp_path / "hub")},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 3, done.stderr
    assert "HuggingFaceTB/SmolLM2-135M-Instruct is not in the hub cache" in done.stderr
    assert "runtime.offline=true" in done.stderr
    assert "Traceback" not in done.stderr
