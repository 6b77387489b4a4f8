"""Kill the whole process group with SIGKILL at seeded moments, run again: the result equals an undisturbed run."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

from pipeline_common.stages import REPOSITORY, STAGE_NAMES
from tests.pipeline.walking import artifact_of, clean_environment, finish, pipeline_command, run_ids, start

# Smaller than the profile, so that ten interrupted runs fit into a test; every stage still does all it does.
SETTINGS = (
    "train.max_steps=24",
    "train.save_steps=5",
    "evaluate.prompts_per_class=64",
    "evaluate.resamples=200",
    "evaluate.judge.max_prompts=8",
)
COMPARED = {
    "prepare": ["train.parquet", "prompts.parquet"],
    "train": ["adapter/adapter_model.safetensors", "adapter/adapter_config.json"],
    "evaluate": ["measures.json", "responses.jsonl"],
}


def seed_models(source: Path, target: Path) -> None:
    """Building the embedded models is tested elsewhere; this walk starts with them."""
    for model in ("base_model", "judge_model"):
        shutil.copytree(source / "artifacts" / model, target / "artifacts" / model)


def working_stage(output: Path) -> str | None:
    folders = [
        entry for entry in (output / "work").glob("*-*") if entry.is_dir() and (entry / "files" / "logs").exists()
    ]
    return max(folders, key=lambda entry: entry.stat().st_mtime).name.rsplit("-", 1)[0] if folders else None


def kill_inside(output: Path, stage: str, delay_s: float) -> bool:
    """Start the pipeline, wait until `stage` works, kill everything `delay_s` later; False when it got past."""
    process = subprocess.Popen(
        pipeline_command(output, "tiny", *SETTINGS),
        cwd=REPOSITORY,
        env=clean_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 180
    while working_stage(output) != stage and process.poll() is None:
        assert time.monotonic() < deadline, f"{stage} never started"
        time.sleep(0.02)
    time.sleep(delay_s)
    killed = process.poll() is None
    if killed:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return killed


def test_killed_anywhere_the_result_is_that_of_an_undisturbed_run(walks, tmp_path):
    calm, harsh = tmp_path / "calm", tmp_path / "harsh"
    for output in (calm, harsh):
        seed_models(walks.tiny.output, output)
    undisturbed = finish(start(calm, "tiny", *SETTINGS), calm)
    assert undisturbed.code == 0, undisturbed.stderr
    moments = random.Random(7)
    killed = [
        kill_inside(harsh, stage, moments.uniform(0.0, 6.0 if stage in {"train", "evaluate"} else 1.0))
        for stage in STAGE_NAMES
    ]
    assert sum(killed) >= 4, "the kills came too late to test anything"
    resumed = finish(start(harsh, "tiny", *SETTINGS), harsh)
    assert resumed.code == 0, resumed.stderr
    run_id = run_ids(calm)["tiny"]
    assert run_ids(harsh) == {"tiny": run_id}
    for stage, names in COMPARED.items():
        for name in names:
            left, right = (artifact_of(output, run_id, stage) / name for output in (calm, harsh))
            assert left.read_bytes() == right.read_bytes(), f"{stage}/{name}"
    assert list((harsh / "work").glob("*-*/")) == [], "a finished run leaves no scratch behind"
