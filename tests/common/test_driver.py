"""What is recorded of the GPUs, by what `nvidia-smi` says: a script of our own in its place on PATH."""

from __future__ import annotations

import logging
import os

import pytest

from pipeline_common import driver, execution, provenance
from pipeline_common.manifest import Manifest
from tests.common.made_stage import write_one_file
from tests.made_driver import says

LINE = "NVIDIA H200, 143771 MiB, 580.95.05"
H200 = {"name": "NVIDIA H200", "memory": "143771 MiB", "driver": "580.95.05"}
LOST = "Unable to determine the device handle for GPU 0000:02:00.0: Unknown Error"


def test_without_the_tool_there_are_none_and_nobody_is_warned(nvidia_smi, caplog):
    with caplog.at_level(logging.DEBUG):
        machine = provenance.describe_machine()
    assert (machine["gpus"], machine["gpus_error"]) == ([], None)
    assert not caplog.records


def test_two_gpus(nvidia_smi, caplog):
    nvidia_smi(says(LINE, LINE))
    machine = provenance.describe_machine()
    assert (machine["gpus"], machine["gpus_error"]) == ([H200, H200], None)
    assert not caplog.records


def test_the_tool_is_asked_for_these_fields(nvidia_smi):
    nvidia_smi('#!/bin/sh\necho "$*"\n')
    asked = "--query-gpu=name,memory.total,driver_version --format=csv,noheader"
    assert driver.ask_driver().error == f"nvidia-smi answered unreadably (exit code 0): {asked}"


def test_a_gpu_that_shares_the_processors_memory(nvidia_smi):
    nvidia_smi(says("NVIDIA GB10, [N/A], 580.95.05"))
    assert driver.ask_driver() == driver.Listing(({"name": "NVIDIA GB10", "memory": "[N/A]", "driver": "580.95.05"},))


@pytest.mark.parametrize(
    ("script", "gpus", "error"),
    [
        (
            says("NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.", code=9),
            (),
            "failed (exit code 9): NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver",
        ),
        (
            "#!/bin/sh\necho 'Failed to initialize NVML' >&2\nexit 18\n",
            (),
            "failed (exit code 18): Failed to initialize NVML",
        ),
        (says("No devices were found", code=6), (), "failed (exit code 6): No devices were found"),
        (says("No devices were found"), (), "answered unreadably (exit code 0): No devices were found"),
        (says(), (), "answered unreadably (exit code 0): it said nothing"),
        (says(code=1), (), "failed (exit code 1): it said nothing"),
        (says("one, two, three"), (), "answered unreadably (exit code 0): one, two, three"),
        (says("NVIDIA H200, 143771 MiB"), (), "answered unreadably (exit code 0): NVIDIA H200, 143771 MiB"),
        (says(f"{LINE}, 1"), (), f"answered unreadably (exit code 0): {LINE}, 1"),
        ("#!/bin/sh\nprintf '\\377\\376\\n'\n", (), "answered unreadably (exit code 0): \ufffd\ufffd"),
        (says("x" * 500), (), f"answered unreadably (exit code 0): {'x' * 200}"),
        # What could be read is kept beside what could not.
        (says(LINE, LOST, code=15), (H200,), f"failed (exit code 15): {LOST}"),
        (says(LINE, LOST), (H200,), f"answered unreadably (exit code 0): {LOST}"),
        (says(LINE, code=14), (H200,), "failed (exit code 14): it said nothing"),
        # Killed by itself, as by the kernel: Popen's code of a signal.
        ("#!/bin/sh\nkill -9 $$\n", (), "failed (exit code -9): it said nothing"),
        ("not a program", (), "did not start: Exec format error"),
    ],
)
def test_what_fails_is_told_by_name(nvidia_smi, script, gpus, error):
    nvidia_smi(script)
    assert driver.ask_driver() == driver.Listing(gpus, f"nvidia-smi {error}")


def test_a_hanging_tool_is_ended_and_told(nvidia_smi, tmp_path):
    nvidia_smi(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 600\n")
    assert driver.ask_driver(timeout_s=0.5) == driver.Listing((), "nvidia-smi gave no answer within 0.5 s")
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_failure_is_logged_once_for_a_process(nvidia_smi, caplog):
    nvidia_smi(says("No devices were found", code=6))
    first, second = provenance.collect(provenance.now(), 1), provenance.collect(provenance.now(), 1)
    assert first["machine"] == second["machine"]
    assert first["machine"]["gpus"] == []
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == (
        "WARNING",
        f"the GPUs of this machine: {first['machine']['gpus_error']}",
    )


def test_a_stage_ends_well_with_the_failure_in_its_log_and_manifest(nvidia_smi, place, plan):
    nvidia_smi(says("NVIDIA-SMI has failed", code=9))
    planned = plan.stages["environment"]
    manifest = execution.run_stage(place, plan, planned, write_one_file, force=False)
    kept = Manifest.model_validate_json(place.store.get_bytes(f"{planned.key}/manifest.json"))
    assert kept == manifest
    machine = kept.provenance["machine"]
    assert (machine["gpus"], machine["gpus_error"]) == ([], "nvidia-smi failed (exit code 9): NVIDIA-SMI has failed")
    log = place.store.get_bytes(f"{planned.key}/logs/stage.log").decode()
    assert f"the GPUs of this machine: {machine['gpus_error']}" in log
