from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from jobs.environment import checks
from jobs.environment.checks import Check
from jobs.environment.hub import check_hub_token
from jobs.environment.models import check_references, embedded_seed
from pipeline_common.artifacts import DirectoryStore
from pipeline_common.config import load_config
from pipeline_common.database import Database
from pipeline_common.errors import ConfigError, InputError, TransientError


def test_the_lock_is_read_with_its_markers():
    locked = checks.locked_versions()
    assert len(locked) > 60
    assert locked["trl"] == "1.16.0"
    # Two lines of numpy, one for each supported Python: exactly one holds here.
    assert locked["numpy"].count(".") == 2
    assert "torch" not in locked


def test_installed_packages_are_compared_with_the_lock(monkeypatch, tmp_path):
    lock = tmp_path / "lock.txt"
    lock.write_text("trl==0.0.1 \\\n    --hash=sha256:00\nabsent-package==2.0\nnumpy==1 ; python_full_version < '3'\n")
    monkeypatch.setattr(checks, "LOCK_FILE", lock)
    check = checks.check_packages()
    assert check.status == "degraded"
    assert check.facts["drift"] == {
        "trl": {"locked": "0.0.1", "installed": "1.16.0"},
        "absent-package": {"locked": "2.0", "installed": None},
    }
    text = checks.installed_requirements(check.facts["drift"])
    assert "# trl: the lock says 0.0.1, installed is 1.16.0" in text
    assert "\ntrl==1.16.0\n" in text


def test_disk_and_memory_are_compared_with_the_need(tmp_path):
    config = load_config("tiny", ["environment.min_free_disk_gib=1e9", "environment.min_memory_gib=0.001"])
    disk, memory = checks.check_machine(config, tmp_path)
    assert (disk.status, memory.status) == ("failed", "ok")
    assert "the profile needs 1000000000.0 GiB" in disk.detail
    assert memory.facts["gib"] > 0.1


def test_a_store_that_works_and_one_that_cannot_be_written(tmp_path):
    assert checks.check_store(DirectoryStore(tmp_path / "a")).status == "ok"
    assert list((tmp_path / "a").rglob("*.*")) == []
    (tmp_path / "file").write_text("")
    check = checks.check_store(DirectoryStore(tmp_path / "file"))
    assert check.status == "failed"
    assert "ARTIFACTS_URI" in check.fix


def test_a_database_that_is_away_empty_or_ready(tmp_path):
    assert checks.check_database(Database("postgresql+psycopg2://u:pw@127.0.0.1:1/d", 1)).status == "failed"
    database = Database(f"sqlite:///{tmp_path}/a.db", 1)
    assert checks.check_database(database).status == "failed"
    database.migrate()
    assert checks.check_database(database).status == "ok"


def test_all_failures_are_told_at_once_and_the_clearest_class_wins():
    failed = [
        Check("disk", "failed", "0 GiB", "free some"),
        Check("database", "failed", "away", "start it", error=TransientError),
        Check("gpu", "ok", "fine"),
    ]
    with pytest.raises(InputError, match="2 check") as caught:
        checks.raise_failures(failed)
    assert "disk: 0 GiB; free some" in str(caught.value)
    assert "database: away; start it" in str(caught.value)
    assert "fine" not in str(caught.value)
    with pytest.raises(TransientError):
        checks.raise_failures(failed[1:])
    checks.raise_failures(failed[2:])


class Hub(BaseHTTPRequestHandler):
    """Answers whoami: one good token, everything else refused."""

    def do_GET(self):
        good = self.path == "/api/whoami-v2" and self.headers.get("authorization") == "Bearer hf_good"
        body = json.dumps({"name": "ada", "type": "user"} if good else {"error": "Invalid credentials"}).encode()
        self.send_response(200 if good else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments):
        pass


@pytest.fixture
def hub(monkeypatch):
    import huggingface_hub.hf_api as api

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    # The address is read when the library is imported.
    monkeypatch.setattr(api.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("token", "status"), [("hf_good", "ok"), ("hf_stale", "failed"), (None, "ok")])
def test_the_hub_token_is_asked_about_and_never_shown(hub, monkeypatch, token, status):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    check = check_hub_token(load_config("llama3-8b"))
    assert check.status == status, check
    assert "hf_" not in str(check.to_json())
    if token == "hf_good":
        assert "ada" in check.detail


def test_a_hub_that_is_away_is_a_degradation(hub, monkeypatch):
    hub.shutdown()
    hub.server_close()
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    assert check_hub_token(load_config("llama3-8b")).status == "degraded"


def test_no_token_is_needed_for_the_embedded_profile(monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert "not needed" in check_hub_token(load_config("tiny")).detail


@pytest.mark.parametrize(
    ("reference", "seed"),
    [("embedded", 1), ("embedded-seed-7", 7), ("embedded-seed-", None), ("embedded-judge", None), ("owner/name", None)],
)
def test_embedded_bases_have_a_seed(reference, seed):
    assert embedded_seed(reference) == seed


def test_the_embedded_judge_knows_only_the_embedded_world():
    check_references(load_config("tiny", ["model.base=embedded-seed-7"]))
    with pytest.raises(ConfigError, match="sample sentences"):
        check_references(load_config("tiny", ["model.base=owner/name"]))
    for base in ("embedded", "embedded-seed-2", "embedded-juge"):
        with pytest.raises(ConfigError, match=rf"evaluate\.judge\.model={base} is no judge; use embedded-judge"):
            check_references(load_config("tiny", [f"evaluate.judge.model={base}"]))


@pytest.mark.parametrize("base", ["embedded-seed-", "embedded-seed-1234567890", "embedded-judge"])
def test_a_mistyped_embedded_base_is_not_looked_for_on_the_hub(base):
    with pytest.raises(ConfigError, match=rf"model\.base={base}: the project builds embedded and embedded-seed-N"):
        check_references(load_config("tiny", [f"model.base={base}"]))
    other = ["model.base=embedded-owner/name", "evaluate.judge.kind=none"]
    check_references(load_config("tiny", other))  # an owner: a hub id
