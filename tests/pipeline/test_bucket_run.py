"""A finished run's artifacts in a bucket: the last stage runs from them as it does from a directory."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

from pipeline_common.artifacts import DirectoryStore, open_store
from pipeline_common.config import ArtifactsConfig
from pipeline_common.stages import REPOSITORY
from tests.pipeline.walking import clean_environment, run_ids
from tests.servers.buckets import serve_rclone

# Differ between any two attempts: the log's times, and what the report tells of its own making.
OWN_TIMES = {"logs/stage.log", "report.html", "report.md", "rows/stage_runs.jsonl"}


def test_analyze_from_a_bucket_equals_analyze_from_a_directory(walks, tmp_path, monkeypatch):
    run_id = run_ids(walks.tiny.output)["tiny"]
    record = json.loads((walks.tiny.output / "artifacts" / "runs" / run_id / "run.json").read_text())
    keys = {name: stage["artifact"] for name, stage in record["stages"].items()}
    directory = DirectoryStore(walks.tiny.output / "artifacts")
    (tmp_path / "served").mkdir()
    with serve_rclone(tmp_path / "served") as server:
        variables = {**server.environment(), "ARTIFACTS_URI": "s3://artifacts/of/tests"}
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        bucket = open_store(variables["ARTIFACTS_URI"], ArtifactsConfig(), tmp_path / "sender")
        for name, key in keys.items():
            manifest = directory.read_manifest(key)
            if name != "analyze":
                bucket.publish(directory.open(manifest), manifest)
        output = tmp_path / "output"
        output.mkdir()
        # The first four stages' rows, as their machines would have written them into the shared database.
        shutil.copy(walks.tiny.output / "results.db", output / "results.db")
        command = [sys.executable, "-m", "jobs.analyze", "--config", "tiny", f"runtime.output_dir={output}"]
        done = subprocess.run(
            command,
            cwd=REPOSITORY,
            env={**clean_environment(), **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        assert server.secret not in done.stdout + done.stderr

        before = {entry.path: entry.sha256 for entry in directory.read_manifest(keys["analyze"]).files}
        after = {entry.path: entry.sha256 for entry in bucket.read_manifest(keys["analyze"]).files}
        assert after.keys() == before.keys()
        assert {path for path in before if before[path] != after[path]} <= OWN_TIMES
        again = json.loads(bucket.get_bytes(f"runs/{run_id}/run.json"))
        assert again["stages"]["analyze"]["artifact"] == keys["analyze"]
        assert (output / "latest" / "analyze" / "report.html").is_file()
