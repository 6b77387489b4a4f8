"""kind: its configurations, the device plugin, and what `make kind-up` says of a machine that is not ready.

The tools of the machine are stood in for by scripts; the script under test is the real one.
"""

from __future__ import annotations

import os
import re
import subprocess
from functools import partial

import pytest
import yaml
from kubernetes_validate import validate

from k8s.rendering.files import SUPPORTED
from pipeline_common.stages import REPOSITORY, STAGE_NAMES
from tests.pipeline.cluster.test_make import would_run

KIND = REPOSITORY / "docker" / "kind"
TOOLKIT = ("nvidia-ctk", "nvidia-container-runtime", "nvidia-container-runtime-hook", "nvidia-container-cli")
CLUSTER_IS_THERE = 'case "$*" in "get clusters") echo alignment;; esac'
MACHINE = {
    "docker": 'case "$*" in *DefaultRuntime*) echo nvidia;; esac',
    "kind": "",
    "kubectl": 'case "$*" in *allocatable*) echo 2;; esac',
    "nvidia-smi": "echo 580.95.05",
    "ldconfig": "",
    **dict.fromkeys(TOOLKIT, ""),
}


@pytest.fixture
def run_script(tmp_path):
    """Run a script of docker/kind on a machine that has these tools and no others; what it did, and called."""

    def run(script, machine, **environment):
        tools = tmp_path / "bin"
        tools.mkdir()
        for name in ("sh", "dirname", "basename", "head", "grep", "sed", "sleep"):
            path = next(found for found in (f"/usr/bin/{name}", f"/bin/{name}") if os.path.exists(found))  # noqa: PTH110
            (tools / name).symlink_to(path)
        for name, text in machine.items():
            (tools / name).unlink(missing_ok=True)
            (tools / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/calls\n{text}\n')
            (tools / name).chmod(0o755)
        done = subprocess.run(
            ["sh", KIND / script],
            env={"PATH": str(tools), **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        calls = tmp_path / "calls"
        return done, calls.read_text() if calls.exists() else ""

    return run


@pytest.fixture
def up(run_script):
    return partial(run_script, "up.sh")


@pytest.fixture
def load(run_script):
    return partial(run_script, "load.sh")


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
        (
            without(kubectl='case "$*" in *allocatable*) echo;; esac', sleep=""),
            "the node offers no nvidia.com/gpu; the plugin says why:",
        ),
        (
            without(kubectl='case "$*" in *allocatable*) echo 0;; esac', sleep=""),
            "kubectl --context kind-alignment logs -n kube-system daemonset/nvidia-device-plugin",
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
    done, calls = up(without(kind=CLUSTER_IS_THERE), GPU="0")
    assert done.returncode == 0
    assert "create" not in calls
    assert "the cluster alignment is there; to make it anew: make kind-down" in done.stderr


@pytest.mark.parametrize("tool", ["kind", "kubectl"])
def test_what_a_tool_says_when_it_fails_is_shown_and_ends_it(up, tool):
    told = "ERROR: the tool's own words"
    failing = {
        "kind": f'case "$*" in create*) echo "{told}" >&2; exit 1;; esac',
        "kubectl": f'case "$*" in *apply*) echo "{told}" >&2; exit 1;; esac',
    }
    done, calls = up(without(**{tool: failing[tool]}))
    assert done.returncode == 1
    assert told in done.stderr
    assert "ready" not in done.stderr
    assert ("kubectl" in calls) is (tool == "kubectl")


def test_a_plugin_that_needs_a_moment_is_waited_for(up, tmp_path):
    asked = f'echo >> {tmp_path}/asked; [ $(grep -c "" {tmp_path}/asked) -lt 3 ] || echo 1'
    late = f'case "$*" in *allocatable*) {asked};; esac'
    done, calls = up(without(kubectl=late, sleep=""))
    assert done.returncode == 0, done.stderr
    assert calls.count("sleep 2") == 2
    assert "the node offers 1 GPU(s)" in done.stderr


def test_every_image_is_loaded(load):
    done, calls = load(without(kind=CLUSTER_IS_THERE))
    assert done.returncode == 0, done.stderr
    loaded = [line.rpartition(" ")[2] for line in calls.splitlines() if line.startswith("kind load")]
    assert loaded == [f"alignment-pipeline-{name}:dev" for name in (*STAGE_NAMES, "orchestrator")]


NO_TRAIN_IMAGE = 'case "$*" in "image inspect alignment-pipeline-train:dev") exit 1;; esac'
FULL_DISK = f'{CLUSTER_IS_THERE}; case "$*" in load*) echo "no space left" >&2; exit 1;; esac'


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        (without("docker"), "docker is not installed"),
        (without("kind"), "kind is not installed"),
        (without(docker="exit 1"), "docker does not answer"),
        (MACHINE, "there is no cluster alignment on this machine: make kind-up"),
        (
            without(kind=CLUSTER_IS_THERE, docker=NO_TRAIN_IMAGE),
            "alignment-pipeline-train:dev is not in this machine's docker: make images",
        ),
        (without(kind=FULL_DISK), "kind could not load alignment-pipeline-environment:dev (its message is above)"),
    ],
)
def test_images_that_cannot_be_loaded_are_told_why(load, machine, words):
    done, calls = load(machine)
    assert done.returncode == 2
    assert words in done.stderr
    assert calls.count("kind load") <= 1


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("kind-up", 'GPU="1" docker/kind/up.sh'),
        ("kind-load", "docker/kind/load.sh"),
        ("kind-down", "kind delete cluster --name alignment"),
    ],
)
def test_a_target_is_one_command(target, command):
    assert would_run(target) == command


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


def test_the_guide_lists_what_the_scripts_say():
    guide = (
        (REPOSITORY / "docs" / "cluster.md").read_text().partition("## On one machine: kind")[2].partition("\n## ")[0]
    )
    rows = re.findall(r"^\| `(.*?)` \| .* \|$", guide, re.MULTILINE)
    assert len(rows) >= 10
    said = "".join((KIND / name).read_text() for name in ("up.sh", "load.sh"))
    assert [row for row in rows if not all(part in said for part in row.split("..."))] == []
