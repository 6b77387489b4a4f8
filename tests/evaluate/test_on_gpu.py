"""What only a GPU shows: kernels, bfloat16 and recorded steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jobs.evaluate.metric.indices import aqi, measure_scatter
from jobs.evaluate.model import load_pair
from jobs.evaluate.model_flat_sweep import sweep_flat
from jobs.evaluate.model_generation import generate
from jobs.evaluate.model_sweep import sweep
from pipeline_common.gpu.models import Placement, load_base

pytestmark = pytest.mark.gpu

# Relative Frobenius norm; a rounding to bfloat16 is 2^-9 at the most, and three layers round some thirty times.
BFLOAT16 = 0.02


@pytest.fixture(scope="module", params=["none", "nf4"])
def placed(request):
    return Placement("cuda", torch.bfloat16, request.param)


@pytest.fixture(scope="module")
def on_gpu(placed, base_folder, adapter_folder):
    return load_pair(base_folder, adapter_folder, placed, "inst")


def apart(found, reference):
    return np.linalg.norm(found - reference) / np.linalg.norm(reference)


@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("role", ["base", "tuned"])
def test_flat_sweep_equals_the_models_own_states(on_gpu, prompts, role, pooling):
    with on_gpu.playing(role) as model:
        found = sweep_flat(model, prompts, pooling=pooling, bos_id=1, batch_tokens=200)
        simple = sweep(model, prompts, pooling=pooling, pad_id=0, bos_id=1, batch_tokens=200)
        own = []
        for ids in prompts:
            states = model(input_ids=torch.tensor([ids], device="cuda"), output_hidden_states=True).hidden_states
            every = torch.stack(states)[:, 0].float()
            own.append((every[:, -1] if pooling == "last" else every[:, 1:].mean(dim=1)).cpu().numpy())
    assert apart(found, np.stack(own)) < BFLOAT16
    assert apart(found, simple) < BFLOAT16


def test_base_equals_a_separate_load(on_gpu, placed, base_folder, prompts):
    def states(model):
        return sweep_flat(model, prompts, pooling="mean", bos_id=1, batch_tokens=200)

    with on_gpu.playing("tuned") as model:
        tuned = states(model)
    with on_gpu.playing("base") as model:
        base = states(model)
    with torch.inference_mode():
        assert np.array_equal(base, states(load_base(base_folder, placed)))
    assert apart(tuned, base) > BFLOAT16


@pytest.mark.parametrize("role", ["base", "tuned"])
def test_recorded_steps_choose_what_the_library_chooses(base_folder, adapter_folder, prompts, role):
    pair = load_pair(base_folder, adapter_folder, Placement("cuda", torch.float32, "none"), "inst")

    def answers(decoder):
        with pair.playing(role) as model:
            return generate(
                model, pair.tokenizer, prompts, stop_ids=(2,), pad_id=0, max_new_tokens=13, batch_tokens=300,
                decoder=decoder,
            )  # fmt: skip

    assert answers("steps") == answers("library")


@pytest.mark.parametrize("role", ["base", "tuned"])
def test_aqi_is_the_cpus(pair, base_folder, adapter_folder, prompts, role):
    """In float32 both sum in another order only, so AQI, a smooth function of the states, agrees to 1e-3 relative."""
    unsafe = np.arange(len(prompts)) >= len(prompts) // 2
    on_gpu = load_pair(base_folder, adapter_folder, Placement("cuda", torch.float32, "none"), "inst")
    found = []
    for one in (pair, on_gpu):
        with one.playing(role) as model:
            states = sweep(model, prompts, pooling="mean", pad_id=0, bos_id=1, batch_tokens=200)
        found.append([float(aqi(measure_scatter(layer, unsafe))) for layer in states[:, 1:].transpose(1, 0, 2)])
    assert found[1] == pytest.approx(found[0], rel=1e-3)
