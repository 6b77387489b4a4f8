"""1 GiB in 8 files and 5,000 files of 4 KiB into a bucket and back: the store, boto3 on its own, the bare server.

    python -m tests.benchmarks.bench_bucket

The server is `rclone serve s3` on this machine's disk. Every way runs in a process of its own, which tells the seconds
of its best try (without imports and hashing for the manifest) and its peak memory.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from pipeline_common.stages import REPOSITORY

if TYPE_CHECKING:
    from tests.benchmarks.__main__ import Timing

MIB: Final = 1 << 20
TRIES: Final = 3
BUCKET: Final = "bench"
SIZES: Final = {"large": (8, 128 * MIB), "small": (5000, 4096)}
TITLES: Final = {"large": "1 GiB in 8 files", "small": "5,000 files of 4 KiB"}
# Part size in MiB and requests at once of the bare transfer manager; its best counts.
MANAGER_SETTINGS: Final = ((8, 10), (32, 4), (32, 8), (64, 8))


def store_way(folder: Path, work: Path) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """This project's store, verification included."""
    from pipeline_common.artifacts import open_store
    from pipeline_common.config import ArtifactsConfig
    from pipeline_common.manifest import Manifest, list_files

    files = list_files(folder)
    manifest = Manifest(stage="train", fingerprint=folder.name, payload={}, run_id="bench", files=files)
    sender = open_store(f"s3://{BUCKET}/store", ArtifactsConfig(), work / "sender")
    reader = open_store(f"s3://{BUCKET}/store", ArtifactsConfig(), work / "reader")

    def up() -> None:
        sender.publish(folder, manifest)

    def down() -> None:
        shutil.rmtree(work / "reader", ignore_errors=True)
        started = time.perf_counter()
        reader.open(manifest)
        return time.perf_counter() - started

    return up, down


def loop_way(folder: Path, work: Path) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """boto3's upload_file and download_file, one after the other."""
    client, paths = make_plain_client(), sorted(folder.iterdir())

    def up() -> None:
        for path in paths:
            client.upload_file(str(path), BUCKET, f"loop/{path.name}")

    def down() -> float:
        target = clear(work / "loop")
        started = time.perf_counter()
        for path in paths:
            client.download_file(BUCKET, f"loop/{path.name}", str(target / path.name))
        return time.perf_counter() - started

    return up, down


def manager_way(folder: Path, work: Path, part_mib: int, requests: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The bare transfer manager, which verifies nothing."""
    from s3transfer.manager import TransferConfig, TransferManager

    client, paths = make_plain_client(), sorted(folder.iterdir())
    config = TransferConfig(
        multipart_threshold=part_mib * MIB, multipart_chunksize=part_mib * MIB, max_request_concurrency=requests
    )

    def up() -> None:
        with TransferManager(client, config) as manager:
            for future in [manager.upload(str(path), BUCKET, f"manager/{path.name}") for path in paths]:
                future.result()

    def down() -> float:
        target = clear(work / "manager")
        started = time.perf_counter()
        with TransferManager(client, config) as manager:
            for future in [manager.download(BUCKET, f"manager/{p.name}", str(target / p.name)) for p in paths]:
                future.result()
        return time.perf_counter() - started

    return up, down


def bare_way(folder: Path, work: Path) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The server's raw rate: presigned requests over plain HTTP, four at a time, what is read is thrown away."""
    import http.client

    client, paths = make_plain_client(), sorted(folder.iterdir())
    host = urlsplit(os.environ["AWS_ENDPOINT_URL_S3"]).netloc

    def sign(method: str) -> dict[Path, str]:
        keys = {path: {"Bucket": BUCKET, "Key": f"bare/{path.name}"} for path in paths}
        return {path: client.generate_presigned_url(method, Params=key) for path, key in keys.items()}

    def ask(share: list[tuple[Path, str]], method: str) -> None:
        connection = http.client.HTTPConnection(host, blocksize=1 << 20)
        buffer = bytearray(1 << 20)
        for path, url in share:
            parts = urlsplit(url)
            with path.open("rb") as body:
                connection.request(
                    method,
                    f"{parts.path}?{parts.query}",
                    body=body if method == "PUT" else None,
                    headers={"Content-Length": str(path.stat().st_size)} if method == "PUT" else {},
                )
                answer = connection.getresponse()
                while answer.readinto(buffer):
                    pass
                if answer.status != 200:
                    raise SystemExit(f"bare {method}: {answer.status}")

    def run(method: str, urls: dict[Path, str]) -> float:
        items = list(urls.items())
        started = time.perf_counter()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda share: ask(share, method), [items[number::4] for number in range(4)]))
        return time.perf_counter() - started

    return lambda: run("PUT", sign("put_object")), lambda: run("GET", sign("get_object"))


def make_plain_client() -> Any:
    import boto3
    from botocore.config import Config

    config = Config(
        s3={"addressing_style": "path"},
        signature_version="s3v4",
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        max_pool_connections=16,
    )
    return boto3.Session().client("s3", config=config)


def clear(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def run_way(name: str, folder: Path, work: Path) -> None:
    """One way in this process: print the best seconds up and down, CPU seconds and peak MiB as JSON."""
    way, *settings = name.split("-")
    ways: dict[str, Any] = {"store": store_way, "loop": loop_way, "manager": manager_way, "bare": bare_way}
    up, down = ways[way](folder, work, *map(int, settings))
    best = {}
    for direction, act in (("up", up), ("down", down)):
        seconds, cpu_s = [], []
        for _ in range(TRIES):
            wall, cpu = time.perf_counter(), time.process_time()
            told = act()
            # Clearing the target is no part of a download, nor signing of a raw request.
            seconds.append(told if isinstance(told, float) else time.perf_counter() - wall)
            cpu_s.append(time.process_time() - cpu)
        best[direction] = {"wall_s": min(seconds), "cpu_s": min(cpu_s)}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**best, "peak_mib": peak}))


def bench() -> list[Timing]:
    """All ways, both sets of files, both directions."""
    from tests.benchmarks.__main__ import Timing
    from tests.servers.buckets import serve_rclone

    rows: list[Timing] = []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        (root / "served" / BUCKET).mkdir(parents=True)
        with serve_rclone(root / "served") as server:
            environment = {**os.environ, **server.environment()}
            for kind, (count, size) in SIZES.items():
                folder = clear(root / kind)
                for number in range(count):
                    (folder / f"{number:05d}.bin").write_bytes(os.urandom(size))

                def measured(name: str, folder: Path = folder) -> dict[str, Any]:
                    command = [sys.executable, "-m", "tests.benchmarks.bench_bucket", name, str(folder), str(root)]
                    done = subprocess.run(
                        command, cwd=REPOSITORY, env=environment, check=True, stdout=subprocess.PIPE, text=True
                    )
                    return dict(json.loads(done.stdout))

                found = {name: measured(name) for name in ("bare", "loop", "store")}
                if kind == "large":
                    managers = [measured(f"manager-{part}-{requests}") for part, requests in MANAGER_SETTINGS]
                for direction in ("up", "down"):
                    ways = dict(found)
                    if kind == "large":
                        ways["transfer manager's best"] = min(managers, key=lambda way: way[direction]["wall_s"])
                        times = ways["transfer manager's best"][direction]["wall_s"] / 0.9
                        limit = f"{times:.2f} s, 300 MiB"
                    else:
                        limit = f"{found['loop'][direction]['wall_s'] / 4:.2f} s, 300 MiB"
                    for name, way in ways.items():
                        title = f"bucket, {TITLES[kind]}, {direction}: {name}"
                        rows.append(
                            Timing(
                                title,
                                **way[direction],
                                peak_mib=way["peak_mib"],
                                limit=limit if name == "store" else "",
                            )
                        )
    return rows


if __name__ == "__main__":
    if len(sys.argv) == 4:
        run_way(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        print("\n".join(timing.row() for timing in bench()))
