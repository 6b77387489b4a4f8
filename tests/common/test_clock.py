"""Where a stage's seconds go."""

from __future__ import annotations

import time

import pytest

from pipeline_common.clock import PhaseClock


def test_phases_add_up_and_an_inner_one_is_taken_off_the_outer_one() -> None:
    clock = PhaseClock()
    began = time.monotonic()
    for _ in range(2):
        with clock.phase("training"):
            time.sleep(0.03)
            with clock.phase("compile"):
                time.sleep(0.05)
    with clock.phase("checksums", "transfer"):
        pass
    spent = time.monotonic() - began
    assert [(one["phase"], one["kind"]) for one in clock.record()] == [
        ("compile", "compile"),
        ("training", "compute"),
        ("checksums", "transfer"),
    ]
    assert clock.seconds["compile"] >= 0.1
    assert 0.06 <= clock.seconds["training"] < spent - clock.seconds["compile"] + 0.01
    assert sum(clock.seconds.values()) <= spent + 0.02  # each is rounded to a hundredth


def test_a_phase_that_fails_leaves_no_time_and_does_not_upset_the_next() -> None:
    clock = PhaseClock()
    with clock.phase("outer"), pytest.raises(RuntimeError, match="in vain"), clock.phase("load"):
        raise RuntimeError("in vain")
    assert list(clock.seconds) == ["outer"]


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="'lunch' is no kind of phase; expected one of imports, load"):
        PhaseClock().phase("a", "lunch").__enter__()
