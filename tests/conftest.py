"""For every test: the servers of tests/servers, an `nvidia-smi` of our own, the tiers, and how tests are spread."""

from __future__ import annotations

import pytest

from tests.made_driver import nvidia_smi  # noqa: F401
from tests.servers.browser import browser  # noqa: F401
from tests.servers.postgres import (  # noqa: F401
    _databases,
    empty_postgres,
    migrated_postgres,
    postgres_server,
)

pytest_plugins = ("tests.tiers", "tests.workers")
# Its asserts tell what they compared, as those in test files do.
pytest.register_assert_rewrite("tests.looking")
