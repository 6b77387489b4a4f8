"""`make test` on every core: how many workers there are, which tests share one, and which begin."""

from __future__ import annotations

import os

import pytest
from xdist.scheduler import LoadScopeScheduling

# Before numpy or torch is imported: each worker is a core's worth already, and the threads of their libraries, waiting
# for one another on cores that others use, made some tests twenty times as long. Processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The longest group would be waited for anyway, and on a machine of many cores the others are somebody's.
MAX_WORKERS = 4
# These write into the output of the walks (tests/pipeline/conftest.py): one worker, in this order.
WALKERS = tuple(
    f"tests/pipeline/test_{name}.py" for name in ("bad_machine", "bucket_run", "compare", "postgres", "walk")
)
# What takes longest begins, so that at the end no worker is alone with one of them. The walks are made first; what only
# reads them (the kill, the calibration) finds them made.
LONG = (
    WALKERS[0],
    "tests/pipeline/test_kill.py",
    "tests/evaluate/test_shards.py",
    "tests/train/test_distributed.py",
    "tests/train/test_interruption.py",
    "tests/common/database/test_stage_faults.py",
    "tests/pipeline/cluster/test_orchestrator.py",
    "tests/pipeline/cluster/test_trouble.py",
    "tests/pipeline/test_calibrate.py",
    "tests/common/artifacts/test_bucket_faults.py",
    "tests/common/artifacts/test_bucket_kills.py",
    "tests/house/test_readme.py",
    "tests/train/test_lost_machine.py",
    "tests/train/test_stage.py",
    "tests/train/test_flat.py",
)


def group(nodeid: str) -> str:
    """The group of a test: its tests run in one worker, in the order in which they are written."""
    path = nodeid.partition("::")[0]
    return "walks" if path in WALKERS else path


class ByFile(LoadScopeScheduling):
    """Spreads groups of tests over the workers, in the order in which they are collected.

    A file stays together: its tests share what costs more than they do, and some depend on their order.
    """

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """A worker per core that this process may use."""
    return max(1, min(MAX_WORKERS, len(os.sched_getaffinity(0))))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log) -> ByFile:
    """Whatever `--dist` says."""
    # Else groups of many tests would begin, however short.
    config.option.loadscopereorder = False
    return ByFile(config, log)


def pytest_collection_modifyitems(config, items):
    """The long groups begin; in a single process the order is the usual one."""
    if hasattr(config, "workerinput"):
        ranks = {group(path): rank for rank, path in enumerate(LONG)}
        items.sort(key=lambda item: ranks.get(group(item.nodeid), len(ranks)))
