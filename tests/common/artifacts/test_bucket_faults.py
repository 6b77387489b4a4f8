"""Servers that are really killed or cut, and damage on disks: what is left must equal an undisturbed run."""

from __future__ import annotations

import sys
import threading
import time

import pytest

from pipeline_common.config import ArtifactsConfig
from pipeline_common.errors import InputError, TransientError
from tests.common.artifacts.made import make_artifact, random_bytes, read_tree
from tests.pipeline.test_bad_machine import run_on_tmpfs
from tests.servers.buckets import serve_rclone
from tests.servers.proxy import proxied

MIB = 1 << 20
FILES = {"large.bin": random_bytes(40 * MIB), "middle.bin": random_bytes(5 * MIB, 1), "small.txt": b"small"}
OUTAGE_S = 30


@pytest.fixture
def own_rclone(tmp_path, use):
    """A server that a test may kill."""
    folder = tmp_path / "served"
    folder.mkdir()
    with serve_rclone(folder) as server:
        use(server)
        yield server


def restart_later(server, seconds):
    timer = threading.Timer(seconds, server.start)
    timer.start()
    return timer


def test_the_server_is_killed_and_restarted_in_mid_upload(own_rclone, open_bucket, tmp_path, use):
    manifest = make_artifact(tmp_path / "made", FILES)
    timers = []

    def crash():
        own_rclone.kill()
        timers.append(restart_later(own_rclone, 0.5))

    with proxied(own_rclone.port) as proxy:
        use(own_rclone, AWS_ENDPOINT_URL_S3=proxy.endpoint)
        proxy.once("up", 20 * MIB, crash)
        open_bucket(give_up_after_s=30).publish(tmp_path / "made", manifest)
    timers[0].join()
    use(own_rclone)
    assert read_tree(open_bucket(cache="another").open(manifest)) == FILES


def test_the_server_is_killed_and_restarted_in_mid_download(own_rclone, open_bucket, tmp_path, use):
    manifest = make_artifact(tmp_path / "made", FILES)
    open_bucket().publish(tmp_path / "made", manifest)
    timers = []

    def crash():
        own_rclone.kill()
        timers.append(restart_later(own_rclone, 0.5))

    with proxied(own_rclone.port) as proxy:
        use(own_rclone, AWS_ENDPOINT_URL_S3=proxy.endpoint)
        proxy.once("down", 20 * MIB, crash)
        folder = open_bucket(cache="another", give_up_after_s=30).open(manifest)
    timers[0].join()
    assert read_tree(folder) == FILES


def test_connections_refused_for_30_s_are_waited_out(own_rclone, open_bucket, tmp_path):
    """With the time that is waited by default."""
    manifest = make_artifact(tmp_path / "made", {"a.txt": b"alpha"})
    own_rclone.kill()
    began = time.monotonic()
    timer = restart_later(own_rclone, OUTAGE_S)
    store = open_bucket(give_up_after_s=ArtifactsConfig().give_up_after_s)
    store.publish(tmp_path / "made", manifest)
    assert time.monotonic() - began >= OUTAGE_S
    timer.join()
    assert read_tree(open_bucket(cache="another").open(manifest)) == {"a.txt": b"alpha"}


def test_a_server_gone_for_good_ends_in_time_with_nothing_published(own_rclone, open_bucket, tmp_path, use):
    manifest = make_artifact(tmp_path / "made", FILES)
    with proxied(own_rclone.port) as proxy:
        use(own_rclone, AWS_ENDPOINT_URL_S3=proxy.endpoint)
        proxy.once("up", 20 * MIB, own_rclone.kill)
        began = time.monotonic()
        with pytest.raises(TransientError, match="the bucket's server is away") as caught:
            open_bucket(give_up_after_s=3).publish(tmp_path / "made", manifest)
    # The limit, and one last round of attempts with their pauses.
    assert time.monotonic() - began < 30
    assert caught.value.exit_code == 1
    own_rclone.start()
    use(own_rclone)
    assert open_bucket().read_manifest(manifest.key) is None
    open_bucket().publish(tmp_path / "made", manifest)
    assert read_tree(open_bucket(cache="another").open(manifest)) == FILES


def test_a_server_gone_for_good_in_mid_download_leaves_nothing_in_use(own_rclone, open_bucket, tmp_path, use):
    manifest = make_artifact(tmp_path / "made", FILES)
    open_bucket().publish(tmp_path / "made", manifest)
    with proxied(own_rclone.port) as proxy:
        use(own_rclone, AWS_ENDPOINT_URL_S3=proxy.endpoint)
        proxy.once("down", 20 * MIB, own_rclone.kill)
        began = time.monotonic()
        with pytest.raises(TransientError, match="the bucket's server is away") as caught:
            open_bucket(cache="another", give_up_after_s=3).open(manifest)
    assert time.monotonic() - began < 30
    assert caught.value.exit_code == 1
    left = {path.name for path in (tmp_path / "another").rglob("*") if path.is_file()}
    assert not {"large.bin", "manifest.json"} & left
    assert not [name for name in left if name.endswith(".partial")]
    own_rclone.start()
    use(own_rclone)
    assert read_tree(open_bucket(cache="another").open(manifest)) == FILES


def test_damage_on_the_servers_disk_is_named_and_mended_by_publishing_again(
    own_rclone, open_bucket, bucket_name, tmp_path
):
    manifest = make_artifact(tmp_path / "made", FILES)
    open_bucket().publish(tmp_path / "made", manifest)
    stored = own_rclone.folder / bucket_name / "some/prefix" / manifest.key / "middle.bin"
    content = bytearray(stored.read_bytes())
    content[3 * MIB] ^= 0x10
    stored.write_bytes(content)
    store = open_bucket(cache="another")
    with pytest.raises(InputError, match=r"middle\.bin differs from its sha256") as caught:
        store.open(manifest)
    assert caught.value.exit_code == 3
    store.publish(tmp_path / "made", manifest)
    assert read_tree(open_bucket(cache="third").open(manifest)) == FILES


def test_a_large_object_cut_off_on_the_servers_disk_is_named(own_rclone, open_bucket, bucket_name, tmp_path):
    manifest = make_artifact(tmp_path / "made", FILES)
    open_bucket().publish(tmp_path / "made", manifest)
    stored = own_rclone.folder / bucket_name / "some/prefix" / manifest.key / "large.bin"
    own_rclone.kill()
    for size in (33 * MIB, 7, 0):
        with stored.open("r+b") as stream:
            stream.truncate(size)
        own_rclone.start()
        with pytest.raises(InputError, match=rf"large\.bin has {size} bytes, the manifest says {40 * MIB}") as caught:
            open_bucket(cache=f"another-{size}").open(manifest)
        assert caught.value.exit_code == 3
        assert not (tmp_path / f"another-{size}" / manifest.key / "large.bin").exists()
        own_rclone.kill()


def test_a_publication_cut_short_sends_only_what_is_not_there(own_rclone, open_bucket, bucket_name, tmp_path, use):
    manifest = make_artifact(tmp_path / "made", FILES)
    open_bucket().publish(tmp_path / "made", manifest)
    # As a kill leaves it: no manifest, one object missing, one damaged.
    stored = own_rclone.folder / bucket_name / "some/prefix" / manifest.key
    (stored / "manifest.json").unlink()
    (stored / "small.txt").unlink()
    (stored / "middle.bin").write_bytes(b"x" * len(FILES["middle.bin"]))
    (stored / "stray").write_bytes(b"of an earlier attempt")
    own_rclone.kill()
    own_rclone.start()
    with proxied(own_rclone.port) as proxy:
        use(own_rclone, AWS_ENDPOINT_URL_S3=proxy.endpoint)
        open_bucket().publish(tmp_path / "made", manifest)
        assert 5 * MIB < proxy.passed["up"] < 6 * MIB
    use(own_rclone)
    assert read_tree(open_bucket(cache="another").open(manifest)) == FILES
    assert not (stored / "stray").exists()


def test_a_fetch_cut_short_reads_only_what_is_not_there(own_rclone, open_bucket, tmp_path, use):
    manifest = make_artifact(tmp_path / "made", FILES)
    open_bucket().publish(tmp_path / "made", manifest)
    folder = open_bucket(cache="another").open(manifest)
    (folder / "manifest.json").unlink()
    (folder / "middle.bin").write_bytes(FILES["middle.bin"][:-1])
    (folder / ".large.bin.1234.partial").write_bytes(b"cut")
    with proxied(own_rclone.port) as proxy:
        use(own_rclone, AWS_ENDPOINT_URL_S3=proxy.endpoint)
        assert read_tree(open_bucket(cache="another").open(manifest)) == FILES
        assert 5 * MIB < proxy.passed["down"] < 6 * MIB


def test_a_full_disk_while_downloading(rclone, use, open_bucket, bucket_name, tmp_path):
    use(rclone)
    manifest = make_artifact(tmp_path / "made", FILES)
    open_bucket().publish(tmp_path / "made", manifest)
    (tmp_path / "mounted").mkdir()
    script = f"""
import os, pathlib, sys
from pipeline_common.artifacts import open_store
from pipeline_common.config import ArtifactsConfig
from pipeline_common.explaining import explain
cache = pathlib.Path({str(tmp_path / "mounted")!r}) / "cache"
store = open_store("s3://{bucket_name}/some/prefix", ArtifactsConfig(), cache)
try:
    store.open(store.read_manifest("{manifest.key}"))
except Exception as error:
    print(explain(error))
    print([path.name for path in cache.rglob("*.partial")], (cache / "{manifest.key}/large.bin").exists())
    sys.exit(explain(error).exit_code)
"""
    done = run_on_tmpfs(tmp_path / "mounted", "size=16m", [sys.executable, "-c", script])
    assert done.returncode == 1, done.stderr
    assert "the disk is full" in done.stdout
    assert "[] False" in done.stdout
