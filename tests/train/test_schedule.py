from __future__ import annotations

import pytest

from jobs.train.schedule import count_epochs, plan_steps
from pipeline_common.config import TrainConfig


def test_the_plan_on_45_000_rows() -> None:
    # 45,000 rows / 4 = 11,250 batches / 2 = 5,625 steps an epoch; 3 epochs = 16,875 steps, capped at 250;
    # 250 steps x 2 batches / 11,250 = 0.0444 epochs; 10 % warm-up = 25.
    schedule = plan_steps(45_000, TrainConfig(epochs=3, max_steps=250, batch_size=4, gradient_accumulation=2))
    assert (schedule.batches_per_epoch, schedule.steps_per_epoch, schedule.steps) == (11_250, 5_625, 250)
    assert schedule.effective_epochs == pytest.approx(500 / 11_250)
    assert schedule.warmup_steps == 25
    assert schedule.capped


@pytest.mark.parametrize(
    ("epochs", "max_steps", "steps", "capped"),
    # 10 rows / 4 = 3 batches (the last of 2 rows), / 2 = 2 steps an epoch.
    [
        (3, 250, 6, False),
        (3, None, 6, False),
        (3, 6, 6, False),
        (3, 5, 5, True),
        (0.5, None, 1, False),
        (0.1, 9, 1, False),
    ],
)
def test_the_smaller_of_epochs_and_max_steps(epochs: float, max_steps: int | None, steps: int, capped: bool) -> None:
    train = TrainConfig(epochs=epochs, max_steps=max_steps, batch_size=4, gradient_accumulation=2)
    schedule = plan_steps(10, train)
    assert (schedule.steps, schedule.capped) == (steps, capped)


def test_an_epochs_last_step_may_be_smaller() -> None:
    # 3 batches, 2 a step: after 3 steps one whole epoch (2 steps) and 2 of 3 batches.
    assert count_epochs(3, batches_per_epoch=3, steps_per_epoch=2, accumulation=2) == pytest.approx(1 + 2 / 3)


def test_fewer_rows_than_a_batch() -> None:
    schedule = plan_steps(1, TrainConfig(epochs=1, max_steps=None, batch_size=8, gradient_accumulation=4))
    assert (schedule.steps, schedule.effective_epochs, schedule.warmup_steps) == (1, 1.0, 1)


@pytest.mark.parametrize(("fraction", "warmup"), [(0.0, 0), (1.0, 6), (0.1, 1)])
def test_warmup_is_a_number_of_steps(fraction: float, warmup: int) -> None:
    train = TrainConfig(epochs=3, max_steps=None, batch_size=4, gradient_accumulation=2, warmup_fraction=fraction)
    assert plan_steps(10, train).warmup_steps == warmup
