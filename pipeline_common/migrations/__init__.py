"""Alembic migrations; run by *environment* (and by any stage on the embedded SQLite file)."""
