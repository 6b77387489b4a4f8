"""What a driver's error means: wait and try again, or tell a person what to change."""

from __future__ import annotations

import sqlite3
from typing import Final

import psycopg2
from sqlalchemy.exc import DBAPIError

from pipeline_common.errors import ConfigError, InputError, PipelineError, TransientError
from pipeline_common.redaction import scrub

DRIVER_ERRORS: Final = (DBAPIError, psycopg2.Error, sqlite3.Error)
# SQLSTATE classes and codes that pass by themselves: connection lost, server starting or stopping, resources short,
# serialisation failure, deadlock, lock not available, and a standby that is being promoted.
_PASSING_STATES: Final = ("08", "57P", "53", "40001", "40P01", "55P03", "25006")
_PRIVILEGE: Final = "42501"
# A failed log-in carries no SQLSTATE in this driver, only the server's words.
_REFUSED_LOGINS: Final = (
    "password authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "is not permitted to log in",
    "authentication failed for user",
    "permission denied for database",
)
_WRONG_ADDRESSES: Final = (
    "does not support SSL",
    "certificate verify failed",
    "invalid connection option",
    "invalid sslmode value",
    "root certificate file",
)


def original(error: BaseException) -> BaseException:
    """The driver's own error behind SQLAlchemy's."""
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error


def is_passing(error: BaseException) -> bool:
    """Whether the same statement may work in a while."""
    cause = original(error)
    text = str(cause)
    if isinstance(cause, sqlite3.OperationalError):
        return "locked" in text
    if not isinstance(cause, psycopg2.Error):
        return False
    if cause.pgcode is not None:
        return str(cause.pgcode).startswith(_PASSING_STATES)
    if isinstance(cause, psycopg2.InterfaceError):
        return "closed" in text
    # A connection that breaks within COPY is reported as the base class itself; its other children are our mistakes.
    broken = isinstance(cause, psycopg2.OperationalError) or type(cause) is psycopg2.DatabaseError
    return broken and not _needs_a_person(text)


def explain_failure(
    error: BaseException, shown_url: str, user: str | None, secrets: tuple[str, ...]
) -> PipelineError | None:
    """The error in a person's words, without secrets; None for what is our own mistake (a constraint, a statement).

    Returns:
        ConfigError for an address, a password or a privilege that somebody has to change, InputError for a damaged
        file, TransientError otherwise.
    """
    cause = original(error)
    said = " ".join(scrub(str(cause), secrets).split())
    if isinstance(cause, psycopg2.Error) and cause.pgcode == _PRIVILEGE:
        return ConfigError(
            f"the role {user or '(default)'} may not do this in {shown_url}: {said}; the environment stage needs the "
            "role that owns the schema, every other stage one with SELECT, INSERT, UPDATE and DELETE on its tables "
            "(k8s/components/postgres/roles/roles.sql makes both)"
        )
    if isinstance(cause, psycopg2.Error) and cause.pgcode is None and _needs_a_person(str(cause)):
        return ConfigError(
            f"the database {shown_url} refuses the connection: {said}; correct the user, the password or the name in "
            "DATABASE_URL, or let this role in"
        )
    if isinstance(cause, sqlite3.Error):
        file_flaw = _explain_file(said, shown_url)
        if file_flaw is not None:
            return file_flaw
    if is_passing(error) or isinstance(cause, sqlite3.OperationalError):
        return TransientError(
            f"the database {shown_url} cannot be used: {said}; check DATABASE_URL, that the server answers, and that "
            "its disk has room"
        )
    return None


def _explain_file(said: str, shown_url: str) -> PipelineError | None:
    if "readonly" in said or "unable to open" in said:
        return ConfigError(f"the database {shown_url} cannot be written: {said}; give a path this user may write")
    if "not a database" in said:
        return ConfigError(f"{shown_url} is something else ({said}); name a database, or a file that is not there yet")
    if "malformed" in said:
        return InputError(
            f"the database {shown_url} is damaged ({said}); move it away and run the pipeline again: finished stages "
            "write their rows from their artifacts"
        )
    return None


def _needs_a_person(text: str) -> bool:
    missing = "FATAL" in text and "does not exist" in text
    return missing or any(words in text for words in (*_REFUSED_LOGINS, *_WRONG_ADDRESSES))
