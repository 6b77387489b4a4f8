"""A stage that is killed at any moment, its artifacts in a bucket: what is left must equal an undisturbed run."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import time
from functools import partial

import sqlalchemy as sa

from pipeline_common import execution
from pipeline_common.artifacts import open_store
from pipeline_common.config import ArtifactsConfig, load_config
from pipeline_common.context import Outputs
from pipeline_common.stages import plan_run
from pipeline_common.tables import TABLES
from pipeline_common.workplace import open_workplace
from tests.common.artifacts.made import random_bytes, read_tree

MIB = 1 << 20
LARGE = random_bytes(2 * MIB)
KILLS = 20
KILL_SEED = 4


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
        (context.files / "large.bin").write_bytes(LARGE)
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
