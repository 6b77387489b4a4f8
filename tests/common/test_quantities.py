"""Sizes and durations, in words."""

from __future__ import annotations

import pytest

from pipeline_common.quantities import describe_seconds


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.04, "0.0 s"), (9.4, "9.4 s"), (9.6, "10 s"), (200, "3 min 20 s"), (3599.6, "1 h 0 min"), (7500, "2 h 5 min")],
)
def test_durations(seconds, told):
    assert describe_seconds(seconds) == told
