"""What a single pod waits for and how it ended, from the API's object alone."""

from __future__ import annotations

from datetime import UTC, datetime

from jobs.pipeline.cluster.pods import blocked_by, last_ended, seconds_since
from tests.pipeline.cluster.made_objects import ended, pod, waiting


def test_a_pod_that_only_creates_its_container_is_not_blocked():
    assert blocked_by(pod(**waiting("ContainerCreating"))) is None
    assert blocked_by(pod(**waiting("InvalidImageName"))) == ("InvalidImageName", "why")
    init = {"initContainerStatuses": [{"name": "init", "state": {"waiting": {"reason": "ErrImagePull"}}}]}
    assert blocked_by(pod(**init)) == ("ErrImagePull", "no message")


def test_the_pod_that_ended_last_is_not_the_one_created_last():
    early = pod("Failed", "late-end", "2026-01-01T00:00:00Z", **ended(1, at="2026-01-01T00:09:00Z"))
    late = pod("Failed", "early-end", "2026-01-01T00:05:00Z", **ended(1, at="2026-01-01T00:06:00Z"))
    assert last_ended([early, late]) is early
    assert last_ended([]) is None


def test_seconds_are_counted_in_utc():
    assert seconds_since("2026-01-01T00:00:00Z", datetime(2026, 1, 1, 0, 10, tzinfo=UTC)) == 600.0
