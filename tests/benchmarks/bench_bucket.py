"""1 GiB in 8 files and 5,000 files of 4 KiB into a bucket and back: the store, boto3 on its own, the bare server.

    python -m tests.benchmarks.bench_bucket

The server is `rclone serve s3` on this machine, its files and ours in memory (/dev/shm): a disk's moods are larger than
what is compared. Every try of every way is a process of its own, which tells its seconds (without imports and hashing
for the manifest) and its peak memory; the ways take turns, and the best of each counts.
"""

from __future__ import annotations

import json
import os
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

from pipeline_common.memory import peak_memory
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
    for store in (sender, reader):
        # The first request makes the client; the other ways make theirs before the clock starts, too.
        store.get_bytes("nothing")

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
    """One try of one way in this process: print seconds up and down, CPU seconds and peak MiB as JSON."""
    way, *settings = name.split("-")
    ways: dict[str, Any] = {"store": store_way, "loop": loop_way, "manager": manager_way, "bare": bare_way}
    up, down = ways[way](folder, work, *map(int, settings))
    found: dict[str, Any] = {}
    for direction, act in (("up", up), ("down", down)):
        wall, cpu = time.perf_counter(), time.process_time()
        told = act()
        # Clearing the target is no part of a download, nor signing of a raw request.
        seconds = told if isinstance(told, float) else time.perf_counter() - wall
        found[direction] = {"wall_s": seconds, "cpu_s": time.process_time() - cpu}
    found["peak_mib"] = peak_memory()["peak_mib"]
    print(json.dumps(found))


def try_way(name: str, folder: Path, root: Path, environment: dict[str, str]) -> dict[str, Any]:
    """`run_way` in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.bench_bucket", name, str(folder), str(root)]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout))


def summarize(kind: str, tries: dict[str, list[dict[str, Any]]]) -> list[Timing]:
    """The best try of each way, and what the store may take beside the others."""
    from tests.benchmarks.__main__ import Timing

    rows = []
    for direction in ("up", "down"):
        best = {name: min(found, key=lambda one: one[direction]["wall_s"]) for name, found in tries.items()}
        managers = [name for name in best if name.startswith("manager")]
        if managers:
            title = min(managers, key=lambda name: best[name][direction]["wall_s"])
            limit_s = best[title][direction]["wall_s"] / 0.9
        else:
            limit_s = best["loop"][direction]["wall_s"] / 4
        for name, one in best.items():
            if name in managers and name != title:
                continue
            peak = max(found["peak_mib"] for found in tries[name])
            limit = f"{limit_s:.2f} s, 300 MiB" if name == "store" else ""
            rows.append(
                Timing(f"bucket, {TITLES[kind]}, {direction}: {name}", **one[direction], peak_mib=peak, limit=limit)
            )
    return rows


def bench() -> list[Timing]:
    """All ways, both sets of files, both directions."""
    from tests.servers.buckets import serve_rclone

    rows: list[Timing] = []
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as temporary:
        root = Path(temporary)
        (root / "served" / BUCKET).mkdir(parents=True)
        with serve_rclone(root / "served") as server:
            environment = {**os.environ, **server.environment()}
            for kind, (count, size) in SIZES.items():
                folder = clear(root / kind)
                for number in range(count):
                    (folder / f"{number:05d}.bin").write_bytes(os.urandom(size))

                names = ["bare", "loop", "store"]
                if kind == "large":
                    names += [f"manager-{part}-{requests}" for part, requests in MANAGER_SETTINGS]
                tries: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
                for _ in range(TRIES):
                    for name in names:
                        tries[name].append(try_way(name, folder, root, environment))
                        shutil.rmtree(root / "served" / BUCKET / name.partition("-")[0])
                rows += summarize(kind, tries)
    return rows


if __name__ == "__main__":
    if len(sys.argv) == 4:
        run_way(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        print("\n".join(timing.row() for timing in bench()))
