from __future__ import annotations

import errno

import pytest

from pipeline_common import execution
from pipeline_common.config import load_config
from pipeline_common.errors import ConfigError, TransientError
from pipeline_common.explaining import explain, why_not_cached
from pipeline_common.stages import plan_run
from tests.common.made_stage import write_one_file


def test_why_not_cached_names_the_field(place, plan):
    execution.run_stage(place, plan, plan.stages["environment"], write_one_file, force=False)
    other = plan_run(load_config("tiny", ["environment.min_memory_gib=1"]))
    reason = why_not_cached(place.store, other.stages["environment"])
    assert reason.endswith("in environment.min_memory_gib: 2.0 -> 1.0")
    assert "no prepare artifact exists yet" in why_not_cached(place.store, plan.stages["prepare"])


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), TransientError),
        (RuntimeError("write failed: No space left on device (os error 28)"), TransientError),
        (RuntimeError("Error while serializing: I/O error: File too large (os error 27)"), TransientError),
        (OSError(errno.EFBIG, "File too large"), TransientError),
        (PermissionError(errno.EACCES, "Permission denied"), ConfigError),
        (OSError(errno.EROFS, "Read-only file system"), ConfigError),
    ],
)
def test_failures_of_the_machine_get_a_persons_words(error, kind):
    wrapped = ValueError("while saving")
    wrapped.__cause__ = error
    assert isinstance(explain(wrapped), kind)


def test_other_errors_stay_what_they_are():
    error = ValueError("x")
    assert explain(error) is error
