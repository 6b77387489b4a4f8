"""A bucket that may not be used as it was asked for: keys, addresses, privileges, the clock."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipeline_common.artifacts import artifacts_uri
from pipeline_common.config import load_config
from pipeline_common.errors import ConfigError, TransientError
from tests.common.artifacts.made import make_artifact
from tests.servers.buckets import BucketServer
from tests.servers.ports import free_port


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wr0ng/secret+"}, r"may not \w+ \(SignatureDoesNotMatch\); check AWS_ACCESS_KEY_ID"),
        ({"AWS_ACCESS_KEY_ID": "unknown"}, r"may not \w+ \(InvalidAccessKeyId\)"),
        ({"AWS_PROFILE": "nobody"}, "AWS_PROFILE"),
        ({"AWS_ENDPOINT_URL_S3": "http://user:s3cret@127.0.0.1:1"}, "AWS_ENDPOINT_URL_S3 holds credentials"),
        ({"AWS_ENDPOINT_URL_S3": "nonsense"}, "check AWS_PROFILE, AWS_ENDPOINT_URL_S3"),
    ],
)
def test_wrong_credentials_and_addresses_say_what_to_do_and_no_secret(moto, use, open_bucket, variables, message):
    use(moto, **variables)
    for work in (lambda store: store.put_bytes("runs/a", b"1"), lambda store: store.read_manifest("train/f00d")):
        with pytest.raises(ConfigError, match=message) as caught:
            work(open_bucket())
        assert caught.value.exit_code == 2
        for secret in ("wr0ng", "s3cret", moto.secret):
            assert secret not in str(caught.value)


def test_no_credentials_at_all(moto, use, open_bucket, monkeypatch):
    use(moto)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ConfigError, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        open_bucket().read_manifest("train/f00d")


def test_a_missing_privilege_is_said(moto, use, open_bucket, bucket_name, tmp_path):
    key, secret = moto.limited
    use(moto, AWS_ACCESS_KEY_ID=key, AWS_SECRET_ACCESS_KEY=secret)
    assert open_bucket(bucket="readable").read_manifest("train/f00d") is None
    manifest = make_artifact(tmp_path / "made", {"a.txt": b"alpha"})
    with pytest.raises(ConfigError, match=r"may not \w+ \(AccessDenied\)"):
        open_bucket(bucket="readable").publish(tmp_path / "made", manifest)
    with pytest.raises(ConfigError, match=r"may not write \(AccessDenied\)"):
        open_bucket(bucket="readable").put_bytes("runs/a", b"1")


def test_a_missing_bucket_is_made_only_where_it_may_be(moto, use, open_bucket, bucket_name):
    use(moto)
    for work in (lambda store: store.put_bytes("runs/a", b"1"), lambda store: store.get_bytes("runs/a")):
        with pytest.raises(ConfigError, match=r"no such bucket; create it, set artifacts\.create_bucket=true"):
            work(open_bucket(create_bucket=False))
    assert open_bucket().get_bytes("runs/a") is None
    open_bucket().put_bytes("runs/a", b"1")
    assert open_bucket(create_bucket=False).get_bytes("runs/a") == b"1"


def test_a_clock_that_is_an_hour_off_is_said(use, open_bucket):
    class Skewed(BaseHTTPRequestHandler):
        def do_GET(self):
            body = b"<Error><Code>RequestTimeTooSkewed</Code><Message>too large</Message></Error>"
            self.send_response(403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Skewed)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        use(BucketServer(f"http://127.0.0.1:{server.server_port}", "key", "secret"))
        with pytest.raises(ConfigError, match="set the clock"):
            open_bucket().read_manifest("train/f00d")
    finally:
        server.shutdown()
        server.server_close()


def test_credentials_in_the_address_are_refused_and_not_repeated(monkeypatch):
    monkeypatch.setenv("ARTIFACTS_URI", "s3://key:s3cr%t@bucket/prefix")
    with pytest.raises(ConfigError, match="holds credentials") as caught:
        artifacts_uri(load_config("tiny"))
    assert "s3cr" not in str(caught.value)


def test_a_dead_port_is_refused_quickly(use, open_bucket):
    use(BucketServer(f"http://127.0.0.1:{free_port()}", "key", "secret"))
    began = time.monotonic()
    with pytest.raises(TransientError, match="check AWS_ENDPOINT_URL_S3"):
        open_bucket(give_up_after_s=0.5).list_keys("train")
    assert time.monotonic() - began < 10
