"""The size of a pass, and how many layers keep their activations, from the memory that is free."""

from __future__ import annotations

import pytest

from jobs.train.batch_plan import BatchPlan, Line, Machine, Probe, Work, choose
from pipeline_common.errors import TransientError

GIB, MIB = 2**30, 2**20
# Of the order of Llama-3-8B on a large GPU: 50 us a token, half as much again when recomputed, 40 ms a pass.
KEPT = Probe(Line(GIB, 4.5 * MIB), Line(0.04, 50e-6))
RECOMPUTED = Probe(Line(GIB, 0.5 * MIB), Line(0.06, 75e-6))
WORK = Work(longest_row=1024, largest_step=8192, mean_step=8192)


def _choose(free_gib: float, work: Work = WORK, **changes: object) -> BatchPlan:
    settings = {"checkpointing": "auto", "tokens": "auto", **changes}
    return choose(Machine(free_gib * GIB, 32), KEPT, RECOMPUTED, work, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("free_gib", "tokens", "recomputed"),
    [
        (120, 8192, 0),  # the whole step in one pass
        # (20 - 1) GiB / 4.5 MiB = 4,323 tokens: 2.4 passes, 0.505 s. One pass needs 2.375 MiB a token, which is 17
        # layers: 0.051 + 8192 * (50 + 17/32 * 25) us = 0.569 s.
        (20, 4323, 0),
        # 1,820 tokens: 5 passes, 0.61 s; with all layers recomputed, one pass, 0.06 + 0.614 s.
        (9, 1820, 0),
        # (1.7 - 1) GiB: 159 tokens are too few for the longest row, which needs 0.7 MiB a token: 31 layers, 1,146
        # tokens in 7.6 passes, 1.07 s; with 32 1,433 in 6.2, 0.99 s.
        (1.7, 1433, 32),
    ],
)
def test_cards_of_different_size(free_gib: float, tokens: int, recomputed: int) -> None:
    plan = _choose(free_gib)
    assert (plan.tokens_per_batch, plan.recomputed_layers) == (tokens, recomputed)
    assert plan.mib_per_token == pytest.approx(4.5 - 4 * recomputed / 32)
    assert plan.free_gib == free_gib


def test_where_passes_are_dear_everything_is_recomputed() -> None:
    slow = Probe(KEPT.bytes, Line(1.0, 50e-6))
    plan = choose(
        Machine(9 * GIB, 32), slow, Probe(RECOMPUTED.bytes, Line(1.0, 75e-6)), WORK, checkpointing="auto", tokens="auto"
    )
    # One pass needs (9 - 1) GiB / 8,192 = 1 MiB a token: 28 of 32 layers.
    assert (plan.tokens_per_batch, plan.recomputed_layers) == (8192, 28)
    assert plan.describe() == (
        "passes of 8192 tokens, activations of 28 of 32 layers recomputed, 1.00 MiB a token, 9.0 GiB free"
    )


def test_the_speed_is_that_of_the_cost_model() -> None:
    plan = _choose(120)
    assert plan.tokens_per_second == pytest.approx(8192 / (0.04 + 8192 * 50e-6))


def test_a_huge_step_is_cut_where_larger_passes_gain_nothing() -> None:
    assert _choose(500, Work(1024, 200_000, 200_000)).tokens_per_batch == 20_480


def test_weights_are_kept_where_that_is_faster() -> None:
    def plan(free_gib: float) -> BatchPlan:
        machine = Machine(free_gib * GIB, 32, weights=13 * GIB, dequantising=0.01)
        return choose(machine, KEPT, RECOMPUTED, WORK, checkpointing="auto", tokens="auto")

    assert plan(120).weights_kept
    # 0.04 - 2 * 0.01 s for the pass.
    assert plan(120).tokens_per_second == pytest.approx(8192 / (0.02 + 8192 * 50e-6))
    # 13 of 20 GiB would leave 1,365 tokens: 6.5 passes of 0.02 s instead of 2.4 of 0.04 s.
    assert not plan(20).weights_kept
    # A layer that computes its forward pass again dequantises again: 0.06 - 3 * 0.01 s.
    machine = Machine(120 * GIB, 32, weights=13 * GIB, dequantising=0.01)
    again = choose(machine, None, RECOMPUTED, WORK, checkpointing=True, tokens="auto")
    assert again.tokens_per_second == pytest.approx(8192 / (0.03 + 8192 * 75e-6))


def test_settings_are_obeyed() -> None:
    every = _choose(120, checkpointing=True)
    assert (every.tokens_per_batch, every.recomputed_layers, every.activation_checkpointing) == (8192, 32, True)
    none = _choose(9, checkpointing=False)
    assert (none.tokens_per_batch, none.recomputed_layers, none.activation_checkpointing) == (1820, 0, False)
    assert _choose(120, tokens=2000).tokens_per_batch == 2000
    # (9 - 1) GiB / 2,000 = 4.096 MiB a token: 4 layers save half a MiB.
    assert (_choose(9, tokens=2000).tokens_per_batch, _choose(9, tokens=2000).recomputed_layers) == (2000, 4)
    # More than fits in any way.
    assert (_choose(3, tokens=8000).tokens_per_batch, _choose(3, tokens=8000).recomputed_layers) == (8000, 32)


def test_a_way_that_could_not_be_measured_is_not_taken() -> None:
    plan = choose(Machine(9 * GIB, 32), None, RECOMPUTED, WORK, checkpointing="auto", tokens="auto")
    assert plan.recomputed_layers == 32


def test_too_little_for_the_longest_row_names_the_settings() -> None:
    message = r"longest row has 1024 tokens.*train\.activation_checkpointing=true.*prepare\.max_length.*memory_gib"
    with pytest.raises(TransientError, match=message):
        _choose(1.2)
    with pytest.raises(TransientError, match=message):
        _choose(2, checkpointing=False)
    with pytest.raises(TransientError, match=message):
        _choose(5.4, checkpointing=False)  # one recomputed layer would do, but none is asked for
    with pytest.raises(TransientError, match=message):
        _choose(1.45, checkpointing=True)  # 32 layers do not, and there is no 33rd
    with pytest.raises(TransientError, match="more than there is"):
        choose(Machine(9 * GIB, 32), None, None, WORK, checkpointing="auto", tokens="auto")


def test_what_fits_exactly_fits() -> None:
    one_row = Work(longest_row=1024, largest_step=1024, mean_step=1024)
    exactly = Machine(GIB + 1024 * 4.5 * MIB, 32)  # 1,024 tokens with all activations kept
    assert choose(exactly, KEPT, RECOMPUTED, one_row, checkpointing="auto", tokens="auto").recomputed_layers == 0
    least = Machine(GIB + 1024 * 0.5 * MIB, 32)  # 1,024 tokens with all of them recomputed
    plan = choose(least, None, RECOMPUTED, WORK, checkpointing=True, tokens=8000)
    assert (plan.tokens_per_batch, plan.recomputed_layers) == (8000, 32)


def test_too_little_says_what_the_only_measured_way_takes() -> None:
    # 1 GiB and 1,024 times 4.5 MiB.
    with pytest.raises(TransientError, match=r"1024 tokens, 5\.0 GiB are free, a pass takes 5\.5 GiB for it"):
        choose(Machine(5 * GIB, 32), KEPT, None, WORK, checkpointing="auto", tokens="auto")


def test_the_work_is_that_of_the_rows() -> None:
    # Two rows a step: the two longest, and twice the mean of 4.
    assert Work.of([3, 9, 1, 5, 2], 2) == Work(longest_row=9, largest_step=14, mean_step=8.0)


@pytest.mark.parametrize(
    ("size", "mean_step", "passes"),
    [
        (100, 60, 1.0),  # holds any step
        (99, 60, 60 / 99 + 0.5),
        (20, 60, 3.5),
        (50, 20, 1.0),  # 20 / 50 + 0.5 = 0.9: there is always one
    ],
)
def test_passes_of_a_mean_step(size: int, mean_step: float, passes: float) -> None:
    assert Work(longest_row=10, largest_step=100, mean_step=mean_step).passes(size) == pytest.approx(passes)


def test_the_launch_is_told_in_tokens() -> None:
    # 10 ms to start a pass's kernels, 5 us of work a token.
    timed = Probe(KEPT.bytes, KEPT.seconds, launching=0.01, busy=5e-6)
    assert timed.launch_tokens == pytest.approx(2000)
    plan = choose(Machine(120 * GIB, 32), timed, None, WORK, checkpointing=False, tokens="auto")
    assert plan.launch_tokens == pytest.approx(2000)
    assert Probe(KEPT.bytes, KEPT.seconds, launching=0.01).launch_tokens is None
    assert Probe(KEPT.bytes, KEPT.seconds, busy=5e-6).launch_tokens is None


@pytest.mark.parametrize(
    ("plan", "says", "any_recomputed"),
    [
        (BatchPlan(512, 0, 4), "passes of 512 tokens, activations kept", False),
        (BatchPlan(512, 4, 4), "passes of 512 tokens, activations recomputed", True),
        (
            BatchPlan(512, 1, 4, weights_kept=True, free_gib=2.0, mib_per_token=0.5),
            "passes of 512 tokens, activations of 1 of 4 layers recomputed, dequantised weights kept, "
            "0.50 MiB a token, 2.0 GiB free",
            True,
        ),
        (BatchPlan(512, 0, 4, free_gib=2.0), "passes of 512 tokens, activations kept", False),
    ],
)
def test_a_plan_in_words(plan: BatchPlan, says: str, any_recomputed: bool) -> None:
    assert plan.describe() == says
    assert plan.activation_checkpointing is any_recomputed


def test_a_measured_line_never_falls_and_has_the_least_slope() -> None:
    assert Line.through((10, 5.0), (20, 7.0)) == Line(3.0, 0.2)
    falling = Line.through((10, 5.0), (20, 4.0))
    assert falling.per_token == pytest.approx(4.0 / 20 / 100)  # a hundredth of what the larger one takes a token
    assert falling.at(20) == pytest.approx(4.0)
    # It would begin at -3: it begins at 0 and rises as steeply.
    assert Line.through((10, 1.0), (20, 5.0)) == Line(0.0, 0.4)
    assert Line.through((10, 5.0), (20, 5.5), least=0.1) == Line(3.5, 0.1)
