"""The database's address: where it comes from, how it is shown, and the engine behind it."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError

from pipeline_common.errors import ConfigError
from pipeline_common.redaction import HIDDEN

if TYPE_CHECKING:
    from pipeline_common.config import Config

APPLICATION_NAME: Final = "alignment-check"
_EXPECTED: Final = "expected postgresql+psycopg2://user:password@host:5432/name or sqlite:////absolute/path.db"
# Sorted, so that the same value is the same text in every database that keeps JSON as text.
dump_json: Final = partial(json.dumps, sort_keys=True, ensure_ascii=False, allow_nan=False)


def database_url(config: Config) -> str:
    """`DATABASE_URL`, else the SQLite file `results.db` in the output folder."""
    default = Path(config.runtime.output_dir).expanduser().resolve() / "results.db"
    return os.environ.get("DATABASE_URL") or f"sqlite:///{default}"


def redact(url: str) -> str:
    """The URL without its password, fit to be shown."""
    try:
        parsed = parse_url(url)
    except ConfigError:
        return "(unreadable database URL)"
    hidden = {key: HIDDEN for key in parsed.query if "password" in key.lower()}
    return parsed.update_query_dict(hidden).render_as_string(hide_password=True)


def parse_url(url: str) -> URL:
    """Take an address apart.

    Raises:
        ConfigError: it is none, or of a database that is not served here; the message repeats nothing of it.
    """
    userinfo = url.partition("://")[2].rpartition("@")[0]
    if url.startswith("postgres") and any(character in userinfo for character in "@/?#"):
        raise ConfigError(
            "DATABASE_URL: its user name or password holds one of @ / ? # unencoded; percent-encode it "
            "(@ is %40, / is %2F, ? is %3F, # is %23, : is %3A, % is %25)"
        )
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        # Nothing of the cause either: it would quote the part of the password that it took for a port.
        raise ConfigError(f"DATABASE_URL is not a database URL ({type(error).__name__}); {_EXPECTED}") from None
    if parsed.drivername in {"postgresql", "postgres"}:
        parsed = parsed.set(drivername="postgresql+psycopg2")
    if parsed.drivername not in {"postgresql+psycopg2", "sqlite", "sqlite+pysqlite"}:
        raise ConfigError(f"DATABASE_URL names {parsed.drivername!r}; {_EXPECTED}")
    return parsed


def create_engine(url: URL, connect_timeout_s: float) -> Engine:
    """An engine that connects when it is first used."""
    seconds = max(1, round(connect_timeout_s))
    if url.get_backend_name() == "sqlite":
        if url.database:
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(url, connect_args={"timeout": connect_timeout_s}, json_serializer=dump_json)
        sa.event.listen(engine, "connect", _enforce_foreign_keys)
        return engine
    return sa.create_engine(
        url,
        connect_args={
            "connect_timeout": seconds,
            "application_name": APPLICATION_NAME,
            # A server that vanished without a word is noticed within a minute, not after the kernel's two hours.
            "keepalives": 1,
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            "tcp_user_timeout": 60_000,
        },
        pool_pre_ping=True,
        json_serializer=dump_json,
    )


def _enforce_foreign_keys(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA foreign_keys=ON")
