from __future__ import annotations

from jobs.environment import accelerator
from pipeline_common.config import load_config
from pipeline_common.errors import ConfigError


def test_the_four_bit_check():
    assert accelerator.check_four_bit(load_config("tiny", ["runtime.device=cpu"])).facts["usable"] is True
    assert accelerator.check_four_bit(load_config("tiny", ["model.quantization=none"])).status == "ok"


def test_a_profile_that_needs_a_gpu_fails_without_one(monkeypatch):
    monkeypatch.setattr(accelerator.torch.cuda, "is_available", lambda: False)
    check = accelerator.check_gpu(load_config("llama3-8b"))
    assert (check.status, check.error) == ("failed", ConfigError)
    assert "20 GiB" in check.detail
    monkeypatch.setattr(accelerator, "gpus", list)
    assert accelerator.check_gpu(load_config("tiny")).status == "ok"


def test_a_gpu_that_torch_cannot_use_is_a_degradation(monkeypatch):
    monkeypatch.setattr(accelerator.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(accelerator, "gpus", lambda: [{"name": "Some GPU", "memory": "24 GiB", "driver": "580"}])
    check = accelerator.check_gpu(load_config("tiny"))
    assert check.status == "degraded"
    assert "the driver lists Some GPU" in check.detail
