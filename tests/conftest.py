"""For every test: the servers of tests/servers, and the tiers."""

from __future__ import annotations

import pytest

from tests.servers.browser import browser  # noqa: F401
from tests.servers.postgres import (  # noqa: F401
    _databases,
    empty_postgres,
    migrated_postgres,
    postgres_server,
)
from tests.tiers import pytest_collection_modifyitems, pytest_terminal_summary  # noqa: F401

# Its asserts tell what they compared, as those in test files do.
pytest.register_assert_rewrite("tests.looking")
