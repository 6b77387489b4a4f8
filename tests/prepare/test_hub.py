"""Hub references, when there is no hub: each case in a process of its own, as the client reads its settings once."""

from __future__ import annotations

import socket
from pathlib import Path

from tests.prepare.conftest import PrepareRun


def test_offline_says_what_to_do(prepare: PrepareRun, tmp_path: Path) -> None:
    done = prepare.start(
        "prepare.dataset=someone/alignment", "runtime.offline=true", HF_HOME=str(tmp_path / "hub"), HF_TOKEN=""
    )
    assert done.returncode == 3, done.stderr
    assert "someone/alignment could not be loaded while offline" in done.stderr
    assert "HF_TOKEN" in done.stderr
    assert "give a local .parquet" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unreachable_hub_says_what_to_do(prepare: PrepareRun, tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
        done = prepare.start(
            "prepare.dataset=someone/alignment", HF_ENDPOINT=endpoint, HF_HOME=str(tmp_path / "hub"), HF_HUB_OFFLINE="0"
        )
    assert done.returncode == 3, done.stderr
    assert "someone/alignment: the hub could not be reached" in done.stderr
    assert "check the name and the network" in done.stderr
    assert "Traceback" not in done.stderr
