"""How the tests are spread over workers: whoever adds a test that looks at the walks decides where it runs."""

from __future__ import annotations

import os
import re

import pytest

from pipeline_common.stages import REPOSITORY
from tests.workers import LONG, MAX_WORKERS, WALKERS, group, pytest_xdist_auto_num_workers

# They only read what the walks left, so they may run beside the tests that write there.
READERS = {f"tests/pipeline/test_{name}.py" for name in ("calibrate", "kill", "other_tools", "report")}


def test_the_tables_name_files_that_exist():
    for path in (*WALKERS, *LONG, *READERS):
        assert (REPOSITORY / path).is_file(), path


def test_who_looks_at_the_walks_is_in_their_group_or_only_reads():
    takes_them = re.compile(r"^def test_\w+\([^)]*\bwalks\b", re.MULTILINE)
    found = {
        path.relative_to(REPOSITORY).as_posix()
        for path in (REPOSITORY / "tests").rglob("test_*.py")
        if takes_them.search(path.read_text(encoding="utf-8"))
    }
    assert found == {*WALKERS, *READERS}
    assert {group(f"{path}::test_a[x::y]") for path in WALKERS} == {"walks"}
    assert group("tests/prepare/test_stage.py::test_a") == "tests/prepare/test_stage.py"


@pytest.mark.parametrize(("cores", "workers"), [(1, 1), (2, 2), (4, 4), (64, MAX_WORKERS)])
def test_a_worker_per_core_up_to_a_limit(monkeypatch, cores, workers):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(cores)))
    assert pytest_xdist_auto_num_workers() == workers
