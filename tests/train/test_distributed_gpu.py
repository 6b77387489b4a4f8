"""On two GPUs: the same as on one, also after a kill."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest

from tests.train.conftest import Finished, Prepared
from tests.train.made_runs import disturb, facts_of, losses

pytestmark = pytest.mark.multi_gpu

# Bfloat16 rounds to 3 digits, and kernels choose their order of sums by the shape of a batch.
BFLOAT16 = 2e-2
SETTINGS = ("runtime.device=cuda", "model.compute_dtype=bfloat16", "train.lora_dropout=0", "train.eval_steps=6")


@pytest.mark.parametrize(
    "settings",
    [
        ("train.engine=plain",),
        ("train.engine=flat", "train.cuda_graphs=false"),
        ("train.engine=flat", "train.cuda_graphs=true", "train.activation_checkpointing=false"),
    ],
    ids=["plain", "flat", "recorded"],
)
def test_two_gpus_train_as_one(prepare_run: Callable[..., Prepared], settings: tuple[str, ...]) -> None:
    settings = (*SETTINGS, *settings)
    alone, together = prepare_run(*settings).train(), prepare_run(*settings, "runtime.gpus=2").train()
    show(alone, together)
    assert losses(together) == pytest.approx(losses(alone), rel=BFLOAT16)
    assert (facts_of(together)["recorded_sizes"] is not None) == ("train.cuda_graphs=true" in settings)
    assert facts_of(together)["backend"] == "nccl"
    assert facts_of(together)["trained_tokens"] == facts_of(alone)["trained_tokens"]


def test_a_base_divided_between_two_gpus_is_the_same_base(prepare_run: Callable[..., Prepared]) -> None:
    settings = (*SETTINGS, "runtime.gpus=2", "train.engine=plain")
    whole, divided = prepare_run(*settings).train(), prepare_run(*settings, "train.sharding=full").train()
    show(whole, divided)
    assert losses(divided) == pytest.approx(losses(whole), rel=BFLOAT16)
    assert facts_of(divided)["base_bytes"] < facts_of(whole)["base_bytes"]


def test_a_killed_process_ends_all_and_the_next_attempt_goes_on(prepare_run: Callable[..., Prepared]) -> None:
    """NCCL itself would wait for the lost process."""
    settings = (*SETTINGS, "train.max_steps=300", "train.epochs=40", "train.save_steps=5", "runtime.gpus=2")
    prepared = prepare_run(*settings)
    since = time.monotonic()
    code, message = disturb(prepared, 10, signal.SIGKILL, follower=True)
    print(f"ended {time.monotonic() - since:.1f} s after the start: {message.splitlines()[-1]}")
    assert code == 1, message
    assert "process 1 of 2 was ended by SIGKILL" in message.splitlines()[-1]
    code, message = disturb(prepared, 30, signal.SIGTERM, follower=True)
    assert code == 143, message

    resumed = prepared.train()
    assert 10 <= facts_of(resumed)["resumed_from_step"] < 300
    undisturbed = prepare_run(*settings).train()
    show(undisturbed, resumed)
    assert losses(resumed) == pytest.approx(losses(undisturbed), rel=BFLOAT16)


def show(one: Finished, other: Finished) -> None:
    """The largest difference, for whoever states a tolerance."""
    expected, found = losses(one), losses(other)
    print("largest relative difference", max(abs(found[key] / expected[key] - 1) for key in expected))
