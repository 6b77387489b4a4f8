"""Writes the results database as one SQLite file."""
