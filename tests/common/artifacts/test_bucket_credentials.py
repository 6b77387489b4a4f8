"""Where keys may come from besides two variables, and a clock that disagrees with a real server's."""

from __future__ import annotations

import datetime
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import botocore.auth
import pytest

from pipeline_common.artifacts import open_store
from pipeline_common.config import ArtifactsConfig
from pipeline_common.errors import ConfigError
from tests.common.artifacts.made import make_artifact, random_bytes, read_tree

ROLE = "pipeline-role"
FILES = {"a.txt": b"alpha", "large.bin": random_bytes(3_000_000)}


@contextmanager
def role_service(server) -> Iterator[str]:
    """What a machine or a container of a cloud asks for its role's keys; they are the server's."""
    keys = {
        "Code": "Success",
        "Type": "AWS-HMAC",
        "AccessKeyId": server.access_key,
        "SecretAccessKey": server.secret,
        "Token": "",
        "LastUpdated": "2026-01-01T00:00:00Z",
        "Expiration": "2099-01-01T00:00:00Z",
    }
    answers = {
        ("PUT", "/latest/api/token"): "a-token",
        ("GET", "/latest/meta-data/iam/security-credentials/"): ROLE,
        ("GET", f"/latest/meta-data/iam/security-credentials/{ROLE}"): json.dumps(keys),
        ("GET", "/container"): json.dumps({**keys, "RoleArn": ROLE}),
    }

    class Service(BaseHTTPRequestHandler):
        def answer(self):
            body = answers.get((self.command, self.path), "").encode()
            self.send_response(200 if body else 404)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-aws-ec2-metadata-token-ttl-seconds", "21600")
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            self.answer()

        def do_PUT(self):
            self.answer()

        def log_message(self, *_):
            pass

    service = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=service.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{service.server_port}"
    finally:
        service.shutdown()
        service.server_close()


@pytest.fixture
def without_keys(rclone, use, monkeypatch):
    """The server's address alone."""
    use(rclone)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    return rclone


def come_and_go(open_bucket, tmp_path):
    manifest = make_artifact(tmp_path / "made", FILES)
    open_bucket().publish(tmp_path / "made", manifest)
    assert read_tree(open_bucket(cache="another").open(manifest)) == FILES


def test_the_role_of_a_machine_gives_the_keys(without_keys, open_bucket, tmp_path, monkeypatch):
    with role_service(without_keys) as address:
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", address)
        come_and_go(open_bucket, tmp_path)


def test_the_role_of_a_container_gives_the_keys(without_keys, open_bucket, tmp_path, monkeypatch):
    with role_service(without_keys) as address:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{address}/container")
        come_and_go(open_bucket, tmp_path)


def test_a_profile_gives_the_keys(without_keys, open_bucket, tmp_path, monkeypatch):
    keys = f"aws_access_key_id={without_keys.access_key}\naws_secret_access_key={without_keys.secret}\n"
    (tmp_path / "credentials").write_text(f"[default]\naws_access_key_id=x\naws_secret_access_key=y\n[ours]\n{keys}")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "ours")
    come_and_go(open_bucket, tmp_path)


def test_the_documented_policy_is_enough_and_ends_at_its_prefix(moto, use, tmp_path):
    key, secret = moto.documented
    use(moto, AWS_ACCESS_KEY_ID=key, AWS_SECRET_ACCESS_KEY=secret)
    files = {**FILES, "larger.bin": random_bytes(40 << 20)}  # in parts
    manifest = make_artifact(tmp_path / "made", files)
    store = open_store("s3://my-bucket/alignment", ArtifactsConfig(), tmp_path / "here")
    store.publish(tmp_path / "made", manifest)
    store.publish(tmp_path / "made", manifest)
    elsewhere = open_store("s3://my-bucket/alignment", ArtifactsConfig(), tmp_path / "there")
    assert read_tree(elsewhere.open(manifest)) == files
    store.withdraw(manifest.key)
    assert store.list_keys("train") == []
    for outside in ("s3://my-bucket/other", "s3://readable/alignment"):
        with pytest.raises(ConfigError, match=r"AccessDenied"):
            open_store(outside, ArtifactsConfig(), tmp_path / "cache").put_bytes("runs/a", b"1")


@pytest.mark.parametrize("hours", [1, -1])
def test_a_real_server_whose_clock_is_an_hour_off(rclone, use, open_bucket, tmp_path, monkeypatch, hours):
    """This side's signing clock is moved: the server cannot tell which of the two is wrong."""
    use(rclone)
    manifest = make_artifact(tmp_path / "made", FILES)
    open_bucket().publish(tmp_path / "made", manifest)
    true_time = botocore.auth.get_current_datetime
    off = datetime.timedelta(hours=hours)
    with monkeypatch.context() as moved:
        moved.setattr(botocore.auth, "get_current_datetime", lambda *given: true_time(*given) + off)
        with pytest.raises(ConfigError, match=r"set the clock"):
            open_bucket(cache="another").open(manifest)
        assert not list((tmp_path / "another").rglob("*.bin"))
        again = make_artifact(tmp_path / "again", FILES, "beef")
        with pytest.raises(ConfigError, match=r"set the clock"):
            open_bucket().publish(tmp_path / "again", again)
    assert open_bucket().read_manifest(again.key) is None
    assert read_tree(open_bucket(cache="another").open(manifest)) == FILES
