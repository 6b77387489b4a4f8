"""The walks: whole runs of the pipeline, each made once for all tests of this folder."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.pipeline.walking import Walk, finish, start


@dataclass(frozen=True)
class Walks:
    tiny: Walk
    again_from_scratch: Walk
    harmful: Walk


@pytest.fixture(scope="session")
def walks(tmp_path_factory) -> Walks:
    """`tiny` twice from nothing, side by side on two cores; then `tiny-harmful` into the first one's output.

    The second one's console is for machines.
    """
    first, second = tmp_path_factory.mktemp("first") / "output", tmp_path_factory.mktemp("second") / "output"
    running = [(start(first, "tiny"), first), (start(second, "tiny", LOG_FORMAT="json"), second)]
    tiny, again = [finish(process, output) for process, output in running]
    assert tiny.code == 0, tiny.stderr
    assert again.code == 0, again.stderr
    harmful = finish(start(first, "tiny-harmful"), first)
    assert harmful.code == 0, harmful.stderr
    return Walks(tiny, again, harmful)
