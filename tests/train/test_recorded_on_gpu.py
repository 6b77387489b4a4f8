"""Recorded passes on a GPU: the losses and gradients of passes whose kernels are started one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from jobs.train import dropped_products
from jobs.train.dropped_products import Masks
from jobs.train.rows import IGNORED
from tests.train.made_trainers import STEPS, Build, TrainerMaker, losses

pytestmark = pytest.mark.gpu
RECORDED = {"cuda_graphs": True, "activation_checkpointing": False, "tokens_per_batch": 300}


def step_of(trainer: Any, seed: int) -> tuple[float, torch.Tensor]:
    """Loss of the first rows and the whole gradient, with dropout by this seed."""
    batch = next(iter(trainer.get_train_dataloader()))
    answers = int((batch["labels"] != IGNORED).sum())
    trainer.model.zero_grad(set_to_none=True)
    torch.manual_seed(seed)
    loss = trainer.training_step(trainer.model, batch, torch.tensor(answers, device="cuda"))
    found = [parameter.grad.flatten() for parameter in trainer.model.parameters() if parameter.requires_grad]
    return float(loss), torch.cat(found).clone()


@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_the_trajectory_is_the_unrecorded_one_with_the_same_masks(build: Build, quantization: str) -> None:
    """Dropout included: a recording reads its seeds anew. Bfloat16 products of other shapes: 1 % over 16 steps."""
    plain = build("flat", "cuda", quantization, lora_dropout=0.3, **RECORDED | {"cuda_graphs": False})
    recorded = build("flat", "cuda", quantization, lora_dropout=0.3, **RECORDED)
    assert plain.recorded is None
    expected = losses(plain)
    assert len(expected) == STEPS
    assert losses(recorded) == pytest.approx(expected, rel=1e-2)
    assert recorded.recorded.recorded > 1
    assert recorded.evaluate()["eval_loss"] == pytest.approx(plain.evaluate()["eval_loss"], rel=1e-2)


def test_each_replay_draws_its_own_masks(build: Build) -> None:
    """Twice the same rows are two replays of the same recordings."""
    trainer = build("flat", "cuda", lora_dropout=0.3, **RECORDED)
    draw = torch.Generator().manual_seed(3)
    for name, parameter in sorted(trainer.model.named_parameters()):
        if "lora_B" in name:
            parameter.data = 0.05 * torch.randn(parameter.shape, generator=draw).cuda()
    (first, one), (again, same), (second, other) = (step_of(trainer, seed) for seed in (1, 1, 2))
    sizes = trainer.recorded.recorded
    step_of(trainer, 3)
    assert trainer.recorded.recorded == sizes
    assert again == pytest.approx(first, rel=1e-5)
    assert float((same - one).norm() / one.norm()) < 1e-3
    assert abs(second - first) > 1e-4 * first
    assert float((other - one).norm() / one.norm()) > 0.1


def test_parameters_that_move_are_recorded_anew(build: Build) -> None:
    """As when an optimizer joins them: a recording reads addresses."""
    trainer = build("flat", "cuda", **RECORDED)
    step_of(trainer, 1)
    draw = torch.Generator().manual_seed(3)
    for _, parameter in sorted(trainer.model.named_parameters()):
        if parameter.requires_grad:
            parameter.data = 0.05 * torch.randn(parameter.shape, generator=draw).cuda()
    loss, gradient = step_of(trainer, 1)
    trainer.recorded = None
    expected, wanted = step_of(trainer, 1)
    assert loss == pytest.approx(expected, rel=1e-3)
    assert float((gradient - wanted).norm() / wanted.norm()) < 0.02


def test_gradients_are_the_unrecorded_ones(build: Build) -> None:
    """Some roundings of 0.4 %: 2 % at most."""
    results = []
    for recorded in (True, False):
        trainer = build("flat", "cuda", lora_dropout=0.3, **RECORDED | {"cuda_graphs": recorded})
        draw = torch.Generator().manual_seed(3)
        for name, parameter in sorted(trainer.model.named_parameters()):
            if "lora_B" in name:
                parameter.data = 0.05 * torch.randn(parameter.shape, generator=draw).cuda()
        results.append(step_of(trainer, 5))
    (loss, gradient), (expected, wanted) = results
    assert loss == pytest.approx(expected, rel=1e-3)
    assert float((gradient - wanted).norm() / wanted.norm()) < 0.02


def test_masks_without_a_kernel_are_never_recorded() -> None:
    """A rank of 8 fills no tile: its masks come from a generator on the host, which a recording would freeze."""
    x, a = (torch.ones(size, 64, dtype=torch.bfloat16, device="cuda") for size in (48, 8))
    graph = torch.cuda.CUDAGraph()
    with pytest.raises(AssertionError, match="the same mask at every replay"), torch.cuda.graph(graph):
        dropped_products.project(x, a, Masks(1, 0.5, 7), 1.0)


def test_what_cannot_be_recorded_is_named(build: TrainerMaker) -> None:
    from pipeline_common.errors import ConfigError

    with pytest.raises(ConfigError, match=r"products of this rank \(train\.lora_r\)"):
        build("flat", "cuda", lora_r=8, lora_dropout=0.3, **RECORDED)
    with pytest.raises(ConfigError, match=r"activations are recomputed"):
        build("flat", "cuda", **RECORDED | {"activation_checkpointing": True})
