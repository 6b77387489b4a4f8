"""Results in a database: SQLAlchemy Core over Postgres (`DATABASE_URL`) or an embedded SQLite file.

Every write may be repeated: rows are upserted by primary key, or replaced in one transaction.
"""

from __future__ import annotations

from pipeline_common.database.address import database_url, redact
from pipeline_common.database.core import Database
from pipeline_common.database.rows import read_rows, write_rows
from pipeline_common.database.schema import HEAD_REVISION, MIGRATIONS

__all__ = ["HEAD_REVISION", "MIGRATIONS", "Database", "database_url", "read_rows", "redact", "write_rows"]
