"""The three runs, made once, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.compare.comparison import Comparison, compare_runs
from jobs.compare.report import write_comparison
from jobs.compare.runs import read_runs
from pipeline_common.workplace import Workplace
from tests.compare.made_runs import make_runs
from tests.compare.three_runs import THREE


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return make_runs(tmp_path_factory.mktemp("made") / "output", THREE)


@pytest.fixture(scope="session")
def comparison(place: Workplace) -> Comparison:
    return compare_runs(read_runs(place, ["harmful", "slipped", "kept"]).runs)


@pytest.fixture(scope="session")
def folder(comparison: Comparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_comparison(comparison, tmp_path_factory.mktemp("report") / "deep")
