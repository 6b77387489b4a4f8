"""The servers of tests/servers, for every test."""

from __future__ import annotations

from tests.servers.postgres import (  # noqa: F401
    _databases,
    empty_postgres,
    migrated_postgres,
    postgres_server,
)
