"""Several processes against one: the same rows, the same losses, one set of artifacts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.train.conftest import Finished, Prepared
from tests.train.test_stage import comparable_rows, facts_of

# Rows are summed in another order, and float32 rounds: 1e-7 a sum, which 16 steps of Adam amplify to some 1e-5.
ROUNDING = 1e-4
# 90 rows are 11 steps of 8 rows and one of 2: an epoch's end that three processes cannot divide evenly.
SETTINGS = ("train.lora_dropout=0", "train.max_steps=16", "train.eval_steps=6")


def losses(run: Finished) -> dict[tuple[str, int], float]:
    return {(row["split"], row["step"]): row["loss"] for row in comparable_rows(run)}


@pytest.mark.parametrize("engine", [("train.engine=plain",), ("train.engine=flat", "train.tokens_per_batch=150")])
def test_two_processes_train_as_one(prepare_run: Callable[..., Prepared], engine: tuple[str, ...]) -> None:
    alone = prepare_run(*SETTINGS, *engine).train()
    together = prepare_run(*SETTINGS, *engine, "runtime.gpus=2").train()

    assert losses(together) == pytest.approx(losses(alone), rel=ROUNDING)
    facts, others = facts_of(together), facts_of(alone)
    assert (facts["processes"], facts["machines"], facts["backend"]) == (2, 1, "gloo")
    assert (others["processes"], others["machines"], others["backend"]) == (1, 1, None)
    assert facts["trained_tokens"] == others["trained_tokens"]
    assert facts["validation_loss"] == pytest.approx(others["validation_loss"], rel=ROUNDING)
