from __future__ import annotations

import pytest

from pipeline_common.config import load_config
from pipeline_common.database import Database
from pipeline_common.stages import plan_run
from pipeline_common.workplace import open_workplace


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.delenv("ARTIFACTS_URI", raising=False)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    return open_workplace(load_config("tiny", [f"runtime.output_dir={tmp_path}/out"]))


@pytest.fixture
def plan(place):
    return plan_run(place.config)


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request, tmp_path):
    """An empty database of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/results.db"
    return request.getfixturevalue("empty_postgres").url


@pytest.fixture(params=["sqlite", "postgres"])
def database(request, tmp_path):
    """A database of either kind at the newest schema."""
    if request.param == "sqlite":
        made = Database(f"sqlite:///{tmp_path}/results.db", 5)
        made.migrate()
    else:
        made = Database(request.getfixturevalue("migrated_postgres").url, 5)
    yield made
    made.engine.dispose()
