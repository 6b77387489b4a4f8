"""The made cluster for tests of the orchestrator."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.pipeline.cluster.running import Cluster
from tests.servers.kubernetes_api import KubernetesApi


@pytest.fixture
def make_cluster(tmp_path) -> Iterator[Callable[..., Cluster]]:
    with KubernetesApi() as api:
        yield lambda *overrides, **scripts: Cluster(api, tmp_path, scripts, overrides)
