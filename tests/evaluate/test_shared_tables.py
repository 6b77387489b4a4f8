"""Tables that processes share: the same memory in all of them, and nothing left of it however they end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from jobs.evaluate.shared_tables import map_table, populating, shared_tables
from pipeline_common.followers import Follower, following
from pipeline_common.provenance import REPOSITORY

SHAPE = (6, 3, 1000)

FILL = """
import sys
from jobs.evaluate.shared_tables import map_table
table = map_table(int(sys.argv[1]), (6, 3, 1000))
assert table[0, 0, 0] == 1
table[4] = 7
"""

HOLD = """
import sys, time
from pathlib import Path
import numpy as np
from jobs.evaluate.shared_tables import map_table, shared_tables
with shared_tables(["base"], Path(sys.argv[1])) as tables:
    table = map_table(tables["base"], (1 << 24,))
    table[:] = 1
    print("filled", flush=True)
    time.sleep(600)
"""


@pytest.fixture(params=["memory", "file"])
def folder(request, tmp_path, monkeypatch):
    """Where the system keeps tables, on one that has memory without a name and on one that has not."""
    if request.param == "file":
        monkeypatch.delattr(os, "memfd_create")
    return tmp_path


def test_a_child_writes_into_the_same_memory(folder, tmp_path):
    with shared_tables(["base", "tuned"], folder) as tables:
        base = map_table(tables["base"], SHAPE)
        base[:] = 1
        assert not map_table(tables["tuned"], SHAPE).any()
        command = [sys.executable, "-c", FILL, str(tables["base"])]
        with following([Follower("child", command, tmp_path / "log", {}, tuple(tables.values()))]) as children:
            children.wait()
        assert not [path for path in folder.iterdir() if path.name != "log"]
    for descriptor in tables.values():
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
    assert base[:, 2, 999].tolist() == [1, 1, 1, 1, 7, 1]


def test_processes_that_do_not_agree_on_the_shape_are_told(folder):
    with shared_tables(["base"], folder) as tables:
        map_table(tables["base"], SHAPE)
        with pytest.raises(AssertionError, match=r"72000 bytes cannot have the shape \(5, 3, 1000\)"):
            map_table(tables["base"], (5, 3, 1000))


def shared_kib() -> int:
    """Memory that files in memory take on this machine."""
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Shmem:"))


def test_nothing_is_left_when_the_last_process_is_killed(tmp_path):
    """64 MiB; the machine's other processes may take or give back a little meanwhile."""
    before = shared_kib()
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        try:
            said = process.stdout.readline()
            during = shared_kib()
        finally:
            process.kill()
    assert said == "filled\n"
    assert during - before > 32 << 10
    assert shared_kib() - before < 32 << 10
    assert not list(tmp_path.iterdir())


def resident_pages(array: np.ndarray) -> int:
    """Pages of a mapped array that this process has, by the kernel's account of its mappings."""
    begin, found = array.ctypes.data, 0
    inside = False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            low, high = (int(end, 16) for end in first.split("-"))
            inside = low <= begin < high
        elif inside and first == "Rss:":
            found += int(line.split()[1]) * 1024 // os.sysconf("SC_PAGESIZE")
    return found


def test_rows_are_laid_out_ahead_and_keep_what_they_hold(tmp_path):
    """Rows of 1 MiB: 256 pages of 4 KiB each."""
    row = (1 << 20) // 4
    with shared_tables(["base"], tmp_path) as tables:
        table = map_table(tables["base"], (8, row))
    table[5, -1] = 3
    pages = (1 << 20) // os.sysconf("SC_PAGESIZE")
    with populating([(table, [2, 5])]):
        end = time.monotonic() + 20
        while resident_pages(table) < 2 * pages and time.monotonic() < end:
            time.sleep(0.01)
    assert resident_pages(table) == 2 * pages
    assert table[5, -1] == 3
    assert not table[:5].any()


def test_leaving_early_ends_the_thread(tmp_path):
    with shared_tables(["base"], tmp_path) as tables:
        table = map_table(tables["base"], (1 << 16, 4096))
    with pytest.raises(KeyError), populating([(table, range(len(table)))]):
        raise KeyError
    assert not [one for one in threading.enumerate() if one.name == "populating"]
    assert resident_pages(table) < table.nbytes // os.sysconf("SC_PAGESIZE")
