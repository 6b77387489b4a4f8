"""The flat engine against the plain one: the same rows, the same losses, the same gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from jobs.train.flat_loss import ChunkedCrossEntropy
from tests.train.made_trainers import STEPS, Build, losses


def test_the_loss_trajectory_is_the_plain_engines(build: Build) -> None:
    """Float32, no dropout: only the order of summation differs, so a relative 1e-4 over 16 steps and two epochs."""
    plain, flat = build("plain"), build("flat")
    expected = losses(plain)

    assert losses(flat) == pytest.approx(expected, rel=1e-4)
    assert len(set(expected)) == STEPS
    assert [entry["tokens"] for entry in flat.state.log_history if "tokens" in entry] == [
        entry["tokens"] for entry in plain.state.log_history if "tokens" in entry
    ]
    assert flat.evaluate()["eval_loss"] == pytest.approx(plain.evaluate()["eval_loss"], rel=1e-4)


@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_gradients_are_those_of_separate_rows(build: Build, quantization: str) -> None:
    """One step's gradients against the mean over the step's answer tokens, row by row through PEFT's own layers."""
    flat, plain = (build(name, quantization=quantization) for name in ("flat", "plain"))
    batch = next(iter(flat.get_train_dataloader()))
    step = batch["step"]
    answers = int((batch["labels"] != -100).sum())
    # B starts at zero, which would leave A without gradients.
    for trainer in (flat, plain):
        generator = torch.Generator().manual_seed(3)
        for name, parameter in sorted(trainer.model.named_parameters()):
            if "lora_B" in name:
                parameter.data = 0.05 * torch.randn(parameter.shape, generator=generator)
    loss = flat.training_step(flat.model, batch, torch.tensor(answers))
    nats = torch.zeros(())
    plain.model.train()
    for ids, labels in zip(step.input_ids, step.labels, strict=True):
        logits = plain.model(input_ids=ids[None]).logits[0]
        nats = nats + torch.nn.functional.cross_entropy(logits[:-1], labels[1:], reduction="sum")
    (nats / answers).backward()
    nats = nats.detach()

    assert len(list(step.passes(flat.tokens_per_batch))) > 1
    assert float(loss) == pytest.approx(float(nats) / answers, abs=1e-5)
    pairs = zip(flat.model.named_parameters(), plain.model.named_parameters(), strict=True)
    trained = [(name, one, other) for (name, one), (_, other) in pairs if one.requires_grad]
    assert len(trained) == 28
    for name, one, other in trained:
        assert other.grad.abs().max() > 1e-4, name
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5, msg=name)


def test_the_size_of_a_pass_changes_nothing_but_rounding(build: Build) -> None:
    small, large = losses(build("flat", tokens_per_batch=1)), losses(build("flat", tokens_per_batch=100_000))
    assert small == pytest.approx(large, rel=1e-4)


def test_recomputed_activations_change_nothing_also_with_dropout(build: Build) -> None:
    """The second forward pass must draw the first one's dropout masks."""
    kept = losses(build("flat", lora_dropout=0.3, max_steps=3))
    assert losses(build("flat", lora_dropout=0.3, max_steps=3, activation_checkpointing=True)) == kept
    assert kept != losses(build("flat", lora_dropout=0.0, max_steps=3))


def test_rows_come_in_the_plain_engines_order_also_after_dropout_has_drawn_numbers(build: Build) -> None:
    """The second epoch's order must not hang on the random numbers that the first one used up."""
    orders = []
    for name in ("plain", "flat"):
        trainer = build(name, lora_dropout=0.3)
        trainer.train()
        orders.append([entry["tokens"] for entry in trainer.state.log_history if "tokens" in entry])
    assert len(orders[0]) == STEPS
    assert orders[0] == orders[1]


def test_out_of_memory_halves_the_passes_once_and_redoes_the_step(build: Build) -> None:
    trainer, told = build("flat"), []
    trainer.on_less_memory = told.append
    batch = next(iter(trainer.get_train_dataloader()))
    answers = torch.tensor(int((batch["labels"] != -100).sum()))
    expected = float(trainer.training_step(trainer.model, batch, answers))
    gradients = [p.grad.clone() for p in trainer.model.parameters() if p.requires_grad]
    trainer.model.zero_grad(set_to_none=True)
    calls = 0

    def fail_on_the_second_pass(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    hook = trainer.model.register_forward_pre_hook(fail_on_the_second_pass)
    assert float(trainer.training_step(trainer.model, batch, answers)) == pytest.approx(expected, abs=1e-5)
    hook.remove()
    assert told == ["CUDA out of memory. Tried to allocate 2.00 GiB; 50 instead of 100 tokens in a pass from here on"]
    for one, other in zip(gradients, (p.grad for p in trainer.model.parameters() if p.requires_grad), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)

    calls = 1
    trainer.model.register_forward_pre_hook(fail_on_the_second_pass)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        trainer.training_step(trainer.model, batch, answers)


def test_the_chunked_loss_is_cross_entropy() -> None:
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(2500, 16, generator=draw).requires_grad_()
    weight, targets = torch.randn(50, 16, generator=draw), torch.randint(50, (2500,), generator=draw)
    got = ChunkedCrossEntropy.apply(hidden, weight, None, targets)
    (gradient,) = torch.autograd.grad(got / 7, hidden)
    expected = torch.nn.functional.cross_entropy(hidden @ weight.t(), targets, reduction="sum")
    (wanted,) = torch.autograd.grad(expected / 7, hidden)

    assert float(got) == pytest.approx(float(expected), rel=1e-6)
    torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=1e-5)
