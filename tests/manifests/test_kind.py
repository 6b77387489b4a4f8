"""kind: its configurations, the device plugin, and what `make kind-up` says of a machine that is not ready.

The tools of the machine are stood in for by scripts; the script under test is the real one.
"""

from __future__ import annotations

import os
import subprocess

import pytest
import yaml
from kubernetes_validate import validate

from k8s.rendering.files import SUPPORTED
from pipeline_common.stages import REPOSITORY

KIND = REPOSITORY / "docker" / "kind"
TOOLKIT = ("nvidia-ctk", "nvidia-container-runtime", "nvidia-container-runtime-hook", "nvidia-container-cli")
MACHINE = {
    "docker": 'case "$*" in *DefaultRuntime*) echo nvidia;; esac',
    "kind": "",
    "kubectl": 'case "$*" in *allocatable*) echo 2;; esac',
    "nvidia-smi": "echo 580.95.05",
    "ldconfig": "",
    **dict.fromkeys(TOOLKIT, ""),
}


@pytest.fixture
def up(tmp_path):
    """Run up.sh on a machine that has these tools and no others."""

    def run(machine, **environment):
        tools = tmp_path / "bin"
        tools.mkdir()
        for name in ("sh", "dirname", "basename", "head", "grep", "sed", "sleep"):
            path = next(found for found in (f"/usr/bin/{name}", f"/bin/{name}") if os.path.exists(found))  # noqa: PTH110
            (tools / name).symlink_to(path)
        for name, script in machine.items():
            (tools / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/calls\n{script}\n')
            (tools / name).chmod(0o755)
        done = subprocess.run(
            ["sh", KIND / "up.sh"],
            env={"PATH": str(tools), **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        calls = tmp_path / "calls"
        return done, calls.read_text() if calls.exists() else ""

    return run


def without(*names, **changed):
    return {name: script for name, script in {**MACHINE, **changed}.items() if name not in names}


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        (without("docker"), "docker is not installed"),
        (without("kind"), "kind is not installed"),
        (without("kubectl"), "kubectl is not installed"),
        (without(docker="exit 1"), "docker does not answer"),
        (without("nvidia-smi"), "without a GPU: make kind-up GPU=0"),
        (without(**{"nvidia-smi": "echo 570.1"}), "NVIDIA driver 570.1: the images' CUDA 13 needs 580 or newer"),
        (without(**{"nvidia-smi": "echo broken"}), "NVIDIA driver broken"),
        (without("nvidia-ctk"), "nvidia-ctk is missing: install the NVIDIA Container Toolkit"),
        (without(docker='case "$*" in *DefaultRuntime*) echo runc;; esac'), "default runtime is runc"),
        (
            without(docker='case "$*" in *DefaultRuntime*) echo nvidia;; exec*nvidia-smi) exit 1;; esac'),
            "the node does not see the GPU",
        ),
    ],
)
def test_a_machine_that_is_not_ready_is_told_why(up, machine, words):
    done, _ = up(machine)
    assert done.returncode == 2
    assert words in done.stderr


def test_with_a_gpu(up):
    done, calls = up(MACHINE)
    assert done.returncode == 0, done.stderr
    assert f"kind create cluster --config {KIND}/cluster-gpu.yaml" in calls
    assert f"apply -f {KIND}/device-plugin.yaml" in calls
    assert "the node offers 2 GPU(s)" in done.stderr
    assert "apply -k k8s/overlays/local\n" in done.stderr


def test_without_a_gpu_nothing_of_nvidia_is_touched(up):
    done, calls = up(without("nvidia-smi", *TOOLKIT), GPU="0")
    assert done.returncode == 0, done.stderr
    assert f"kind create cluster --config {KIND}/cluster.yaml" in calls
    assert "nvidia" not in calls
    assert "apply -k k8s/overlays/local/cpu\n" in done.stderr


def test_a_cluster_that_is_there_is_kept(up):
    done, calls = up(without(kind='case "$*" in "get clusters") echo alignment;; esac'), GPU="0")
    assert done.returncode == 0
    assert "create" not in calls


def test_the_commands_it_ends_with_name_overlays():
    text = (KIND / "up.sh").read_text()
    for overlay in ("local", "local/cpu", "local/services"):
        assert (REPOSITORY / "k8s" / "overlays" / overlay / "kustomization.yaml").is_file()
        assert overlay in text


def test_the_configurations_differ_by_the_mount_alone():
    plain, gpu = (yaml.safe_load((KIND / name).read_text()) for name in ("cluster.yaml", "cluster-gpu.yaml"))
    mounts = gpu["nodes"][0].pop("extraMounts")
    assert gpu == plain
    assert mounts == [{"hostPath": "/dev/null", "containerPath": "/var/run/nvidia-container-devices/all"}]


@pytest.mark.parametrize("version", SUPPORTED)
def test_the_device_plugin_is_valid(version):
    plugin = yaml.safe_load((KIND / "device-plugin.yaml").read_text())
    validate(plugin, version, strict=True)
    (container,) = plugin["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"].keys() == {"cpu", "memory"}
