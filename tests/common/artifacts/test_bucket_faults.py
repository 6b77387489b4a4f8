"""Servers and processes that are really killed, cut or refused; what is left must equal an undisturbed run."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import sys
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import sqlalchemy as sa

from pipeline_common import execution
from pipeline_common.artifacts import artifacts_uri, open_store
from pipeline_common.config import ArtifactsConfig, load_config
from pipeline_common.context import Outputs
from pipeline_common.errors import ConfigError, InputError, TransientError
from pipeline_common.stages import plan_run
from pipeline_common.tables import TABLES
from pipeline_common.workplace import open_workplace
from tests.common.artifacts.made import make_artifact, random_bytes, read_tree
from tests.pipeline.test_bad_machine import run_on_tmpfs
from tests.servers.buckets import BucketServer, serve_rclone
from tests.servers.ports import free_port
from tests.servers.proxy import proxied

MIB = 1 << 20
FILES = {"large.bin": random_bytes(40 * MIB), "middle.bin": random_bytes(5 * MIB, 1), "small.txt": b"small"}
KILLS = 20
OUTAGE_S = 30
KILL_SEED = 4


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


# ---------------------------------------------------------------- a stage, killed at any moment


def run_once(output, uri, crash_after=None, uploading=None):
    """One attempt in a process of its own; with its SIGKILL so many seconds after its start, or after `uploading`."""
    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=_stage, args=(output, uri))
    process.start()
    if crash_after is not None:
        while uploading is not None and process.is_alive() and not uploading():
            time.sleep(0.002)
        process.join(crash_after)
        process.kill()
    process.join(60)
    return process.exitcode


def _stage(output, uri):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["ARTIFACTS_URI"] = uri
    place, plan = _place(output)

    def run(context):
        (context.files / "large.bin").write_bytes(FILES["large.bin"][: 2 * MIB])
        for number in range(4):
            (context.files / f"{number}.bin").write_bytes(random_bytes(MIB // 4, number))
        rows = [{"split": "train", "step": step, "epoch": 1.0, "loss": step / 7} for step in range(1, 101)]
        return Outputs(rows={"training_metrics": rows})

    execution.run_stage(place, plan, plan.stages["environment"], run, force=False)
    os._exit(0)


def _place(output):
    config = load_config("tiny", [f"runtime.output_dir={output}"])
    return open_workplace(config), plan_run(config, "the-run")


def outcome(output, uri, cache):
    """Everything that must not differ: files of the artifact by content, rows, the stage's end."""
    place, plan = _place(output)
    store = open_store(uri, ArtifactsConfig(), cache)
    manifest = store.read_manifest(plan.stages["environment"].key)
    files = {path: content for path, content in read_tree(store.open(manifest)).items() if path != "logs/stage.log"}
    rows = place.database.select(sa.select(TABLES["training_metrics"]))
    (stage,) = place.database.select(sa.select(TABLES["stage_runs"]))
    return files, rows, (stage["state"], stage["exit_code"], stage["artifact"])


def test_a_stage_killed_at_any_moment_ends_as_if_undisturbed(rclone, use, bucket_name, tmp_path):
    use(rclone)
    template = tmp_path / "template"
    place, _ = _place(template)
    place.database.migrate()
    place.database.engine.dispose()

    def fresh(name):
        shutil.copytree(template, tmp_path / name)
        return tmp_path / name, f"s3://{bucket_name}/{name}"

    output, uri = fresh("undisturbed")
    began = time.monotonic()
    assert run_once(output, uri) == 0
    span = time.monotonic() - began
    expected = outcome(output, uri, tmp_path / "undisturbed-cache")
    assert len(expected[1]) == 100

    draw = random.Random(KILL_SEED)
    killed, cut_uploads, started = 0, 0, 0
    while killed < KILLS:
        started += 1
        assert started <= 3 * KILLS, "the kills came too late to test anything"
        output, uri = fresh(f"killed-{started}")
        elsewhere = open_store(uri, ArtifactsConfig(), tmp_path / f"elsewhere-{started}")
        began = time.monotonic()
        if killed < KILLS * 3 // 4:
            code = run_once(output, uri, crash_after=draw.uniform(0.05, 1.0) * span)
        else:
            # The upload is a small part of the whole: the last moments are counted from its first object.
            uploading = partial(elsewhere.list_objects, "environment")
            code = run_once(output, uri, crash_after=draw.uniform(0.0, 0.03), uploading=uploading)
        if code == -signal.SIGKILL:
            killed += 1
        else:
            # It was done before: the first run also paid for what is read once, or the machine was busier then.
            span = 0.8 * min(span, time.monotonic() - began)
        # Whatever the moment, what another machine sees is nothing or the whole.
        place, plan = _place(output)
        manifest = elsewhere.read_manifest(plan.stages["environment"].key)
        if manifest is not None:
            elsewhere.open(manifest)
        else:
            cut_uploads += bool(elsewhere.list_objects("environment"))
        assert run_once(output, uri) == 0
        files, rows, end = outcome(output, uri, tmp_path / f"cache-{started}")
        assert (files, rows) == expected[:2]
        assert end[1:] == expected[2][1:]
    assert cut_uploads > 0, "no kill fell into the upload"


def test_a_dead_port_is_refused_quickly(use, open_bucket):
    use(BucketServer(f"http://127.0.0.1:{free_port()}", "key", "secret"))
    began = time.monotonic()
    with pytest.raises(TransientError, match="check AWS_ENDPOINT_URL_S3"):
        open_bucket(give_up_after_s=0.5).list_keys("train")
    assert time.monotonic() - began < 10
