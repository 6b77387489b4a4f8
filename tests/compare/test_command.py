"""The command, as a person gives it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline_common.stages import REPOSITORY
from tests.compare.three_runs import THREE
from tests.servers.buckets import serve_rclone


def compare(output: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "ARTIFACTS_URI"}}
    return subprocess.run(
        [sys.executable, "-m", "jobs.compare", *arguments, f"runtime.output_dir={output}"],
        cwd=REPOSITORY,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_a_database_it_says_what_to_do(tmp_path):
    nothing = compare(tmp_path / "elsewhere")
    assert nothing.returncode == 3
    assert "run the pipeline first" in nothing.stderr


def test_the_command_finds_the_runs_in_a_bucket(place, tmp_path):
    """As from a directory; of each artifact only what is read is fetched."""
    from pipeline_common.artifacts import open_store
    from pipeline_common.config import ArtifactsConfig

    (tmp_path / "served").mkdir()
    with serve_rclone(tmp_path / "served") as server, pytest.MonkeyPatch.context() as patch:
        variables = {**server.environment(), "ARTIFACTS_URI": "s3://artifacts/of/tests"}
        for name, value in variables.items():
            patch.setenv(name, value)
        bucket = open_store(variables["ARTIFACTS_URI"], ArtifactsConfig(), tmp_path / "sender")
        for run in THREE[:2]:
            record = f"runs/{run.run_id}/run.json"
            content = place.store.get_bytes(record)
            bucket.put_bytes(record, content)
            for stage in json.loads(content)["stages"].values():
                manifest = place.store.read_manifest(stage["artifact"])
                if bucket.read_manifest(manifest.key) is None:
                    bucket.publish(place.store.open(manifest), manifest)
        output = tmp_path / "output"
        database = f"sqlite:///{place.output}/results.db"
        done = compare(output, "--run", "kept", "--run", "harmful", **{**variables, "DATABASE_URL": database})
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == ["1. kept: no damage found", "2. harmful: damaged"]
    written = Path(done.stdout.splitlines()[2])
    assert written.parent.parent == output.resolve() / "comparisons"
    assert written.exists()
    fetched = {path.name for path in (output / "cache").rglob("*") if path.is_file()}
    assert "embeddings.safetensors" in fetched
    assert "training_metrics.jsonl" not in fetched
