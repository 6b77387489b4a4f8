"""One vector for the optimizer: the same numbers as with separate parameters."""

from __future__ import annotations

import copy

import torch

from jobs.train.joined_optimizer import join_parameters


def test_steps_are_those_of_separate_parameters() -> None:
    torch.manual_seed(0)
    alone = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Linear(7, 3))
    together = copy.deepcopy(alone)
    optimizers = []
    for model in (alone, together):
        weights = [p for name, p in model.named_parameters() if "weight" in name]
        biases = [p for name, p in model.named_parameters() if "bias" in name]
        groups = [{"params": weights, "weight_decay": 0.1}, {"params": biases, "weight_decay": 0.0}]
        optimizers.append(torch.optim.AdamW(groups, lr=0.01))
    join_parameters(optimizers[1])
    assert [len(group["params"]) for group in optimizers[1].param_groups] == [1, 1]
    for step in range(5):
        x = torch.randn(4, 5, generator=torch.Generator().manual_seed(step))
        for model, optimizer in zip((alone, together), optimizers, strict=True):
            model.zero_grad()
            model(x).square().sum().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
    for one, other in zip(alone.parameters(), together.parameters(), strict=True):
        assert torch.equal(one, other)
    assert all(group["params"][0].grad is None for group in optimizers[1].param_groups)


def test_a_parameter_without_a_gradient_counts_as_one_of_zeros() -> None:
    a, b = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    optimizer = torch.optim.SGD([a, b], lr=1.0)
    join_parameters(optimizer)
    a.grad = torch.full((3,), 0.25)
    optimizer.step()
    assert a.tolist() == [0.75] * 3
    assert b.tolist() == [1.0] * 3


def test_states_in_8_bits_and_parameters_of_different_type_stay_apart() -> None:
    parameters = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3, dtype=torch.float64))]
    optimizer = torch.optim.SGD(parameters, lr=1.0)
    join_parameters(optimizer)
    assert optimizer.param_groups[0]["params"] == parameters
    same = torch.optim.SGD([torch.nn.Parameter(torch.ones(3)) for _ in range(2)], lr=1.0)
    same.args = type("Arguments", (), {"optim_bits": 8})()
    join_parameters(same)
    assert len(same.param_groups[0]["params"]) == 2


def test_parameters_that_were_moved_are_put_back_with_their_values() -> None:
    """A trainer of several processes on a CPU moves a model from "cpu" to "cpu:0", which copies it."""
    a, b = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    optimizer = torch.optim.SGD([a, b], lr=1.0)
    join_parameters(optimizer)
    b.data = torch.full((3,), 5.0)
    for _ in range(2):
        a.grad, b.grad = torch.full((3,), 0.25), torch.full((3,), 1.0)
        optimizer.step()
    assert a.tolist() == [0.5] * 3
    assert b.tolist() == [3.0] * 3
