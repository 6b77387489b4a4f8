from __future__ import annotations

import json

import pytest

from jobs.environment import accelerator
from jobs.environment.stage import _write_report
from pipeline_common.config import load_config
from pipeline_common.errors import ConfigError
from pipeline_common.model_location import ResolvedModel, ResolvedModels
from tests.made_driver import says


@pytest.fixture
def blind(monkeypatch):
    """Torch sees no GPU."""
    monkeypatch.setattr(accelerator.torch.cuda, "is_available", lambda: False)


def test_the_four_bit_check():
    assert accelerator.check_four_bit(load_config("tiny", ["runtime.device=cpu"])).facts["usable"] is True
    assert accelerator.check_four_bit(load_config("tiny", ["model.quantization=none"])).status == "ok"


def test_a_profile_that_needs_a_gpu_fails_without_one(blind, nvidia_smi):
    check = accelerator.check_gpu(load_config("llama3-8b"))
    assert (check.status, check.error) == ("failed", ConfigError)
    assert check.detail == "none; the profile needs 20 GiB of GPU memory"
    assert accelerator.check_gpu(load_config("tiny")).status == "ok"


def test_a_gpu_that_torch_cannot_use_is_a_degradation(blind, nvidia_smi):
    nvidia_smi(says("Some GPU, 24564 MiB, 580.95.05"))
    check = accelerator.check_gpu(load_config("tiny"))
    assert check.status == "degraded"
    assert "the driver lists Some GPU" in check.detail


def test_a_driver_that_lists_nothing_is_a_degradation(blind, nvidia_smi):
    nvidia_smi(says("NVIDIA-SMI has failed", code=9))
    found = "and nvidia-smi failed (exit code 9): NVIDIA-SMI has failed"
    check = accelerator.check_gpu(load_config("tiny"))
    assert check.status == "degraded"
    assert check.detail.endswith(f"{found}: running on the CPU")
    check = accelerator.check_gpu(load_config("llama3-8b"))
    assert (check.status, check.error) == ("failed", ConfigError)
    assert check.detail.endswith(f"{found}; the profile needs 20 GiB of GPU memory")


@pytest.mark.parametrize(
    ("script", "driver", "told"),
    [
        (says("Some GPU, 24564 MiB, 580.95.05"), "580.95.05", "driver 580.95.05"),
        (says("lost", code=15), None, "driver unknown (nvidia-smi failed (exit code 15): lost)"),
        (None, None, "driver unknown (no nvidia-smi)"),
    ],
)
def test_a_gpu_that_torch_uses_is_ok_whatever_the_driver_says(monkeypatch, nvidia_smi, script, driver, told):
    class Properties:
        name, total_memory, major, minor = "Some GPU", 24 << 30, 8, 9

    answers = {"is_available": True, "device_count": 1, "get_device_properties": Properties, "is_bf16_supported": True}
    for name, answer in answers.items():
        monkeypatch.setattr(accelerator.torch.cuda, name, lambda *_, answer=answer: answer)
    if script is not None:
        nvidia_smi(script)
    check = accelerator.check_gpu(load_config("tiny"))
    assert (check.status, check.facts["driver"]) == ("ok", driver)
    assert check.detail.endswith(told)


@pytest.mark.parametrize(
    ("script", "told", "error"),
    [
        (says("Some GPU, 24564 MiB, 580.95.05"), "CPUs, 1 GPU(s). Base model", None),
        (
            says("lost", code=15),
            "CPUs, 0 GPU(s) (nvidia-smi failed (exit code 15): lost). Base model",
            "nvidia-smi failed (exit code 15): lost",
        ),
    ],
)
def test_the_report_says_why_gpus_are_not_known(nvidia_smi, tmp_path, script, told, error):
    nvidia_smi(script)
    models = ResolvedModels(base=ResolvedModel(kind="hub", reference="made/by-hand", commit="0123abcd"))
    _write_report(tmp_path, "tiny", [accelerator.Check("packages", "ok", "", facts={"drift": {}})], models)
    assert told in (tmp_path / "environment.md").read_text()
    assert json.loads((tmp_path / "environment.json").read_text())["machine"]["gpus_error"] == error
