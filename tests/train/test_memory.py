"""The size of a pass, and whether activations are kept, from the memory that is free."""

from __future__ import annotations

import pytest

from jobs.train.memory import BatchPlan, Need, choose
from pipeline_common.errors import TransientError

GIB, MIB = 2**30, 2**20
# Of the order of Llama-3-8B: kept activations take some 4.5 MiB a token, recomputed ones some 0.5.
NEEDS = {False: Need(fixed=GIB, per_token=4.5 * MIB), True: Need(fixed=GIB, per_token=0.5 * MIB)}


def _choose(free_gib: float, **changes: object) -> BatchPlan:
    settings = {"longest_row": 1024, "largest_step": 8192, "checkpointing": "auto", "tokens": "auto", **changes}
    return choose(free_gib * GIB, NEEDS.__getitem__, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("free_gib", "tokens", "recomputed"),
    [
        (120, 8192, False),  # the whole step in one pass
        (60, 8192, False),
        (20, 4323, False),  # (20 - 1) GiB / 4.5 MiB = 4,323.6: two passes a step beat recomputing
        (9, 8192, True),  # kept: 1,820 tokens, too few; recomputed: 16,384 fit, more than a step has
        (3, 4096, True),  # (3 - 1) GiB / 0.5 MiB
    ],
)
def test_cards_of_different_size(free_gib: float, tokens: int, recomputed: bool) -> None:
    plan = _choose(free_gib)
    assert (plan.tokens_per_batch, plan.activation_checkpointing) == (tokens, recomputed)
    assert plan.mib_per_token == (0.5 if recomputed else 4.5)
    assert plan.free_gib == free_gib


def test_a_huge_step_is_cut_where_larger_passes_gain_nothing() -> None:
    assert _choose(500, largest_step=200_000).tokens_per_batch == 20_480


def test_settings_are_obeyed() -> None:
    assert _choose(120, checkpointing=True) == BatchPlan(8192, True, 120.0, 0.5)
    assert _choose(9, checkpointing=False) == BatchPlan(1820, False, 9.0, 4.5)
    assert _choose(120, tokens=2000) == BatchPlan(2000, False, 120.0, 4.5)
    assert _choose(9, tokens=2000) == BatchPlan(2000, True, 9.0, 0.5)


def test_too_little_for_the_longest_row_names_the_settings() -> None:
    with pytest.raises(TransientError, match=r"longest row has 1024 tokens.*prepare\.max_length"):
        _choose(1.2)
    with pytest.raises(TransientError, match=r"train\.activation_checkpointing=true"):
        _choose(2, checkpointing=False)
