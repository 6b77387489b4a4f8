from __future__ import annotations

import pytest

from pipeline_common.config import load_config
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
