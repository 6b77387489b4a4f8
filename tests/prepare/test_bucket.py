"""Data from a bucket, against a real S3 server of our own with authentication switched on."""

from __future__ import annotations

import json
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from jobs.prepare.bucket import download
from jobs.prepare.reading import open_source, read_batches
from pipeline_common.errors import InputError, TransientError
from tests.prepare.conftest import make_rows, write_parquet

REGION = "us-east-1"


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, dict[str, str]]]:
    """Endpoint and working keys of a server that checks signatures and permissions."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    plain = {
        "region_name": REGION,
        "aws_access_key_id": "any",
        "aws_secret_access_key": "any",
        "endpoint_url": endpoint,
    }
    iam = boto3.client("iam", **plain)
    iam.create_user(UserName="pipeline")
    keys = iam.create_access_key(UserName="pipeline")["AccessKey"]
    allowed = {
        "Effect": "Allow",
        "Action": "s3:*",
        "Resource": ["arn:aws:s3:::data", "arn:aws:s3:::data/*", "arn:aws:s3:::absent/*"],
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    iam.put_user_policy(UserName="pipeline", PolicyName="data", PolicyDocument=policy)
    s3 = boto3.client("s3", **plain)
    for bucket in ("data", "others"):
        s3.create_bucket(Bucket=bucket)
        s3.put_object(Bucket=bucket, Key="sets/rows.jsonl", Body=b'{"a": "one"}\n{"a": "two"}\n')
    request = urllib.request.Request(
        f"{endpoint}/moto-api/reset-auth", data=b"0", headers={"Content-Type": "text/plain"}, method="POST"
    )
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200
    yield endpoint, {"AWS_ACCESS_KEY_ID": keys["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": keys["SecretAccessKey"]}
    server.stop()


@pytest.fixture(autouse=True)
def environment(server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    endpoint, keys = server
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    # Nobody's own settings, and no machine role, may answer for the environment.
    for name, value in {
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL_S3": endpoint,
        **keys,
    }.items():
        monkeypatch.setenv(name, value)


def test_an_object_is_fetched_identified_and_read(tmp_path: Path) -> None:
    source = open_source("s3://data/sets/rows.jsonl", None, tmp_path / "downloads", offline=False)
    (batch,) = read_batches(source, ["a"])
    assert batch.columns == {"a": ["one", "two"]}
    assert source.facts["bytes"] == 26
    # By `md5sum` and `sha256sum`.
    assert source.facts["etag"] == "ddeb4750265475a01a3f937d491514cc"
    assert source.facts["sha256"] == "3a695863ace0db9f6fa95b5fd5cb2719b3a9b76881ff15da083bdbc572d26bb0"
    assert [path.name for path in (tmp_path / "downloads").iterdir()] == ["rows.jsonl"]


def test_a_key_is_no_url(tmp_path: Path) -> None:
    client = boto3.Session().client("s3")
    for key, text in (("odd/a", "another"), ("odd/a#1?b.jsonl", "this one")):
        client.put_object(Bucket="data", Key=key, Body=text.encode())
    path, _ = download("s3://data/odd/a#1?b.jsonl", tmp_path / "downloads")
    assert path.read_text(encoding="utf-8") == "this one"


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("s3://data/sets/missing.jsonl", "no such object"),
        ("s3://absent/rows.jsonl", "no such bucket"),
        ("s3://others/sets/rows.jsonl", r"refused \(AccessDenied\); check AWS_ACCESS_KEY_ID"),
        ("s3://data", "expected s3://bucket/path"),
        ("s3://data/folder/", "expected s3://bucket/path"),
    ],
)
def test_what_cannot_be_had_is_said(reference: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        download(reference, tmp_path / "downloads")


def test_a_wrong_secret_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(InputError, match=r"refused \(SignatureDoesNotMatch\)"):
        download("s3://data/sets/rows.jsonl", tmp_path / "downloads")


def test_no_keys_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(InputError, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        download("s3://data/sets/rows.jsonl", tmp_path / "downloads")


def test_no_server_is_transient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{free.getsockname()[1]}")
        with pytest.raises(TransientError, match="did not answer"):
            download("s3://data/sets/rows.jsonl", tmp_path / "downloads")


def test_parquet_from_a_bucket(server: Any, tmp_path: Path) -> None:
    rows = make_rows(5)
    body = write_parquet(tmp_path / "rows.parquet", rows).read_bytes()
    boto3.Session().client("s3").put_object(Bucket="data", Key="rows.parquet", Body=body)
    source = open_source("s3://data/rows.parquet", None, tmp_path / "downloads", offline=False)
    (batch,) = read_batches(source, ["Prompt"])
    assert batch.columns["Prompt"] == [row["Prompt"] for row in rows]
