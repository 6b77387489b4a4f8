"""python -m jobs.analyze --config tiny [section.field=value ...]."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline_common.cli import stage_main

if TYPE_CHECKING:
    from pipeline_common.context import Context, Outputs


def _load() -> Callable[[Context], Outputs]:
    from jobs.analyze.stage import run

    return run


if __name__ == "__main__":
    raise SystemExit(stage_main("analyze", _load))
