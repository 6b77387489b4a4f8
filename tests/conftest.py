"""The servers of tests/servers, for every test."""

from __future__ import annotations

from tests.servers.postgres import (  # noqa: F401
    _migrated_template,
    empty_postgres,
    migrated_postgres,
    postgres_server,
)
