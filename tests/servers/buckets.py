"""Real S3 servers for the tests: `moto_server` with permissions checked, and `rclone serve s3` with files on disk."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from pipeline_common.stages import REPOSITORY
from tests.servers.ports import free_port

REGION = "us-east-1"
_ACCESS_KEY, _SECRET = "bucket-tests", "s3cr+t/for=tests&only"


@dataclass
class BucketServer:
    """An S3 server that listens on 127.0.0.1."""

    endpoint: str
    access_key: str
    secret: str
    limited: tuple[str, str] | None = None
    """Keys of a user who may read the bucket `readable` and nothing else."""
    documented: tuple[str, str] | None = None
    """Keys of a user with the policy that docs/storage.md gives to stages: `my-bucket`, below `alignment/`."""

    def environment(self) -> dict[str, str]:
        """The variables under which the pipeline finds it."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            # Nobody's own settings may answer for the environment.
            "AWS_CONFIG_FILE": "/nonexistent/config",
            "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent/credentials",
        }

    def client(self) -> Any:
        """A plain client of the tests' own, to look behind the store's back."""
        return boto3.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret,
            region_name=REGION,
            config=Config(
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )


@dataclass
class RcloneServer(BucketServer):
    """`rclone serve s3` on a folder; can be killed and started again on the same port."""

    folder: Path = field(default_factory=Path)
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it listens."""
        # The scripts of the environment that runs the tests, whether it is activated or not.
        rclone = shutil.which("rclone", path=str(Path(sys.executable).parent)) or "rclone"
        command = [rclone, "--config", "/dev/null", "serve", "s3", "--addr", f"127.0.0.1:{self.port}"]
        options = ["--auth-key", f"{self.access_key},{self.secret}", str(self.folder)]
        self.process = subprocess.Popen(
            [*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ}
        )
        wait_for_port(self.port)

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def serve_rclone(folder: Path) -> Iterator[RcloneServer]:
    """A server on `folder`, which holds one subfolder per bucket."""
    port = free_port()
    server = RcloneServer(f"http://127.0.0.1:{port}", _ACCESS_KEY, _SECRET, folder=folder, port=port)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def serve_moto() -> Iterator[BucketServer]:
    """A server that checks signatures and permissions, with one user for all and one limited.

    A process of its own: whether moto checks permissions is one switch for all its servers in a process.
    """
    port = free_port()
    with run_moto(port):
        yield grant(f"http://127.0.0.1:{port}")


@contextmanager
def run_moto(port: int, *options: str) -> Iterator[None]:
    """`moto_server` on a port, until the end."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port), *options]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_port(port)
        yield
    finally:
        server.kill()
        server.wait()


def grant(endpoint: str, verify: str | bool = True) -> BucketServer:
    """Make users and policies on a fresh moto server, then switch its authentication on."""
    plain = {
        "region_name": REGION,
        "aws_access_key_id": "any",
        "aws_secret_access_key": "any",
        "endpoint_url": endpoint,
        "verify": verify,
    }
    iam = boto3.client("iam", **plain)
    readable = ["arn:aws:s3:::readable", "arn:aws:s3:::readable/*"]
    storage = (REPOSITORY / "docs" / "storage.md").read_text(encoding="utf-8")
    policies = {
        "everything": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}],
        "reader": [{"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": readable}],
        "stages": json.loads(storage.split("```json\n")[1].split("```")[0])["Statement"],
    }
    keys = []
    for user, statements in policies.items():
        iam.create_user(UserName=user)
        key = iam.create_access_key(UserName=user)["AccessKey"]
        policy = {"Version": "2012-10-17", "Statement": statements}
        iam.put_user_policy(UserName=user, PolicyName=user, PolicyDocument=json.dumps(policy))
        keys.append((key["AccessKeyId"], key["SecretAccessKey"]))
    for bucket in ("readable", "my-bucket"):
        boto3.client("s3", **plain).create_bucket(Bucket=bucket)
    request = urllib.request.Request(
        f"{endpoint}/moto-api/reset-auth", data=b"0", headers={"Content-Type": "text/plain"}, method="POST"
    )
    context = None
    if isinstance(verify, str):
        import ssl

        context = ssl.create_default_context(cafile=verify)
    with urllib.request.urlopen(request, context=context) as answer:
        assert answer.status == 200
    return BucketServer(endpoint, *keys[0], limited=keys[1], documented=keys[2])


def wait_for_port(port: int, timeout_s: float = 60) -> None:
    """Return when something listens."""
    until = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)
        else:
            return
