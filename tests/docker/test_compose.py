"""compose.yaml and the script that starts it, read and run with a stand-in for docker."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess

import pytest
import yaml

from pipeline_common.stages import REPOSITORY

DOCKER = REPOSITORY / "docker"
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))
SERVICES = COMPOSE["services"]
# ${NAME:?what to do} refuses to start without a value; ${NAME:-default} is for what is no secret.
REQUIRED = re.compile(r"\$\{([A-Z_]+):\?[^}]+\}")


def test_a_bucket_and_a_database():
    assert set(SERVICES) == {"bucket", "postgres"}
    assert set(COMPOSE["volumes"]) == {"bucket", "postgres"}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_is_pinned_healthy_private_and_keeps_its_data(name):
    service = SERVICES[name]
    tag = service["image"].rpartition(":")[2]
    assert re.search(r"\d+\.\d+|\d{4}-\d{2}-\d{2}", tag), service["image"]
    assert "latest" not in tag
    check = service["healthcheck"]
    assert check["test"][0] in {"CMD", "CMD-SHELL"}
    assert {"interval", "timeout", "retries"} <= set(check)
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert any(volume.split(":")[0] == name for volume in service["volumes"])


def test_no_secret_is_written_down():
    named = {
        key: value
        for service in SERVICES.values()
        for key, value in service["environment"].items()
        if re.search("PASSWORD|SECRET|KEY|ROOT_USER", key)
    }
    assert len(named) >= 5
    for key, value in named.items():
        assert REQUIRED.fullmatch(value), key


def test_mounted_files_exist_and_are_read_only():
    mounted = [volume.split(":") for volume in SERVICES["postgres"]["volumes"] if volume.startswith("../")]
    assert [source.rpartition("/")[2] for source, _, _ in mounted] == ["roles.sql", "set_passwords.sh"]
    for source, _, mode in mounted:
        assert (DOCKER / source).is_file()
        assert mode == "ro"
    # The image's entry point would read a script that may not be executed into its own shell.
    assert os.access(DOCKER / mounted[1][0], os.X_OK)


@pytest.fixture
def machine(tmp_path):
    """A copy of the folder, and a `docker` that notes how it was called."""
    copy = tmp_path / "docker"
    shutil.copytree(DOCKER, copy, ignore=shutil.ignore_patterns(".env"))
    programs = tmp_path / "bin"
    programs.mkdir()
    stand_in = programs / "docker"
    stand_in.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n')
    stand_in.chmod(0o755)

    def services(command, **environment):
        return subprocess.run(
            [copy / "services.sh", command],
            env={"PATH": f"{programs}:{os.environ['PATH']}", **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return tmp_path, services


def test_up_writes_passwords_once_and_waits_until_both_answer(machine):
    folder, services = machine
    first = services("up")
    assert first.returncode == 0, first.stderr
    written = folder / "docker" / ".env"
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    values = dict(line.split("=", 1) for line in written.read_text().splitlines())
    asked = {name for service in SERVICES.values() for name in REQUIRED.findall(str(service["environment"]))}
    assert set(values) == asked
    secrets = [value for name, value in values.items() if name != "BUCKET_ACCESS_KEY"]
    assert len(set(secrets)) == 4
    assert all(re.fullmatch("[0-9a-f]{48}", value) for value in secrets)
    assert not any(value in first.stdout + first.stderr for value in secrets)
    content = written.read_bytes()
    assert services("up").returncode == 0
    assert written.read_bytes() == content
    assert (folder / "calls").read_text().splitlines() == [
        "compose --env-file .env -f compose.yaml up --detach --wait"
    ] * 2


def test_down_keeps_the_volumes(machine):
    folder, services = machine
    assert "nothing to stop" in services("down").stderr
    services("up")
    assert services("down").returncode == 0
    assert (folder / "calls").read_text().splitlines()[-1] == "compose --env-file .env -f compose.yaml down"


def test_a_machine_without_docker_is_told(machine):
    _, services = machine
    done = services("up", DOCKER="no-such-program")
    assert done.returncode == 2
    assert "DOCKER=" in done.stderr


def test_the_passwords_stay_out_of_version_control():
    ignored = (REPOSITORY / ".gitignore").read_text().splitlines()
    assert "docker/.env" in ignored
