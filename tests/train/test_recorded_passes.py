"""Filling passes up to a few sizes changes nothing; what a recording replays is the pass itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from jobs.train.batch_plan import BatchPlan, Line, Probe, Work
from jobs.train.flat import flat_inputs
from jobs.train.recorded_passes import RecordedPasses, Size, Sizes
from jobs.train.recording import pays, record_passes
from jobs.train.rows import IGNORED
from pipeline_common.errors import ConfigError
from tests.train.made_trainers import STEPS, Build, TrainerMaker, losses


def fill(trainer: Any, sizes: Sizes) -> Any:
    """Let a trainer fill its passes up; on a processor they are run, not recorded."""
    trainer.recorded = RecordedPasses(trainer.model, trainer.adapters, sizes, autocast=None)
    return trainer


def inputs_of(*lengths: int) -> dict[str, Any]:
    rows = [torch.arange(3, 3 + length) for length in lengths]
    return flat_inputs(rows, [torch.cat([torch.tensor([IGNORED]), row[1:]]) for row in rows])


def test_sizes_follow_the_mean_pass() -> None:
    # 2,064 / 16 = 129 tokens, which is two tiles of 64; rows and largest pass are rounded up to whole steps.
    assert Sizes.plan(2064, 4200, 8, 1000) == Sizes(grain=128, rows=9, longest=1024, most=4224)
    # Never finer than a tile, and a row that fills up may be as long as a step of sizes.
    assert Sizes.plan(100, 300, 2, 40) == Sizes(grain=64, rows=3, longest=128, most=320)


@pytest.mark.parametrize(
    ("tokens", "targets", "size"),
    [(1, 0, Size(128, 32)), (128, 32, Size(128, 32)), (129, 65, Size(256, 128)), (512, 385, Size(512, 512))],
)
def test_a_pass_gets_the_smallest_size_that_holds_it(tokens: int, targets: int, size: Size) -> None:
    assert Sizes.plan(2064, 4200, 8, 1000).of(tokens, targets) == size


def test_a_row_of_its_own_fills_a_pass_up() -> None:
    sizes = Sizes(grain=8, rows=4, longest=16, most=32)
    size, filled = sizes.fill_up(inputs_of(5, 6))
    # 11 tokens, 9 of them targets: 16 tokens, three quarters of them hold the targets.
    assert size == Size(16, 12)
    assert filled["input_ids"].tolist() == [3, 4, 5, 6, 7, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0]
    assert filled["position_ids"].tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4]
    assert filled["cu_seqlens"].tolist() == [0, 5, 11, 16, 16]
    assert filled["target_positions"].tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9, 0, 0, 0]
    assert filled["target_ids"].tolist() == [4, 5, 6, 7, 4, 5, 6, 7, 8, *[IGNORED] * 3]


@pytest.mark.parametrize("lengths", [(2, 2, 2, 2), (17,), (12, 12, 12)])
def test_what_no_size_holds_is_refused(lengths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected fewer than 4 rows, at most 32 tokens, rows of at most 16"):
        Sizes(grain=8, rows=4, longest=16, most=32).fill_up(inputs_of(*lengths))


@pytest.mark.parametrize("budget", [100, 100_000])
def test_filled_up_passes_train_as_the_others(build: Build, budget: int) -> None:
    """Float32: only the order of summation differs. No pass is as long as the size of 1,000 tokens, or a multiple."""
    plain, filled = (build("flat", tokens_per_batch=budget) for _ in range(2))
    expected = losses(plain)
    assert len(expected) == STEPS
    assert losses(fill(filled, Sizes(grain=1000, rows=9, longest=1000, most=10_000))) == pytest.approx(
        expected, rel=1e-4
    )
    assert filled.evaluate()["eval_loss"] == pytest.approx(plain.evaluate()["eval_loss"], rel=1e-4)


def test_memory_that_recordings_lack_ends_recording_before_passes_are_halved(build: Build) -> None:
    trainer, told = build("flat"), []
    trainer.on_less_memory = told.append
    batch = next(iter(trainer.get_train_dataloader()))
    answers = torch.tensor(int((batch["labels"] != IGNORED).sum()))
    expected = float(trainer.training_step(trainer.model, batch, answers))
    trainer.model.zero_grad(set_to_none=True)
    fill(trainer, Sizes(grain=100, rows=9, longest=200, most=1000))

    def fail(*_: Any) -> None:
        if trainer.recorded is not None:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    trainer.model.register_forward_pre_hook(fail)
    assert float(trainer.training_step(trainer.model, batch, answers)) == pytest.approx(expected, abs=1e-5)
    assert told == ["CUDA out of memory. Tried to allocate 2.00 GiB; passes are not recorded from here on"]
    assert trainer.tokens_per_batch == 100


@pytest.mark.parametrize(("mean", "steps", "worth_it"), [(2064, 250, True), (9000, 250, False), (2064, 20, False)])
def test_recording_pays_for_many_small_steps(mean: float, steps: int, worth_it: bool) -> None:
    # 0.3 s to start, 60 us a token: the GPU works as long on 5,000 tokens; 70 % of 9,000 would be 6,300.
    probe = Probe(Line(0, 1), Line(0, 1), launching=0.3, busy=60e-6)
    assert probe.launch_tokens == pytest.approx(5000)
    assert pays(BatchPlan(20_480, 0, 32, launch_tokens=probe.launch_tokens), mean, steps) is worth_it
    assert not pays(BatchPlan(20_480, 1, 32, launch_tokens=probe.launch_tokens), mean, steps)


def test_recording_is_never_chosen_where_nothing_was_measured() -> None:
    assert not pays(BatchPlan(4096, 0, 32), 10, 10_000)
    assert Probe(Line(0, 1), Line(0, 1)).launch_tokens is None


def test_recording_that_was_asked_for_and_cannot_be_is_an_error(build: TrainerMaker) -> None:
    with pytest.raises(ConfigError, match=r"train.cuda_graphs=true, but there is no GPU; set it to auto or false"):
        build("flat", cuda_graphs=True)
    trainer = build("flat")
    assert trainer.recorded is None
    recipe = build.recipe("flat", cuda_graphs=False)
    assert record_passes(trainer, recipe, BatchPlan(1, 0, 2, launch_tokens=1e9), Work(1, 1, 1)) is None
