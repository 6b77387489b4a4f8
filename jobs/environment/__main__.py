"""python -m jobs.environment --config tiny [section.field=value ...]."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline_common.cli import stage_main

if TYPE_CHECKING:
    from pipeline_common.context import Context, Outputs


def _load() -> Callable[[Context], Outputs]:
    from jobs.environment.stage import run

    return run


if __name__ == "__main__":
    raise SystemExit(stage_main("environment", _load))
