"""The walks: whole runs of the pipeline, each made once for all tests that look at them, whatever their worker."""

from __future__ import annotations

import fcntl
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from tests.pipeline.walking import Walk, finish, start


@dataclass(frozen=True)
class Walks:
    """Tests that write into their output are in the group `walks` of tests/workers.py; the others only read."""

    tiny: Walk
    harmful: Walk


@pytest.fixture(scope="session")
def walks(request, tmp_path_factory) -> Walks:
    """`tiny` from nothing; then `tiny-harmful`, its console for machines, into the same output.

    Made by the worker that asks first.
    """
    shared = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        # A worker's own folder is inside the one of the whole run.
        shared = shared.parent
    with (shared / "walks.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept = shared / "walks.json"
        if not kept.exists():
            made = _make_walks(tmp_path_factory.mktemp("walks") / "output")
            kept.write_text(json.dumps(asdict(made), default=str))
    return Walks(
        **{name: Walk(Path(walk.pop("output")), **walk) for name, walk in json.loads(kept.read_text()).items()}
    )


def _make_walks(output: Path) -> Walks:
    tiny = finish(start(output, "tiny"), output)
    assert tiny.code == 0, tiny.stderr
    harmful = finish(start(output, "tiny-harmful", LOG_FORMAT="json"), output)
    assert harmful.code == 0, harmful.stderr
    return Walks(tiny, harmful)
