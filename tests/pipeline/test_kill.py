"""The second walk: from scratch, killed with SIGKILL inside every stage; its result equals the undisturbed walk's."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from jobs.train.checkpoints import MARKER
from pipeline_common.stages import REPOSITORY, STAGE_NAMES
from tests.pipeline.walking import Walk, artifact_of, clean_environment, finish, pipeline_command, run_ids, start

COMPARED = {
    "prepare": ["train.parquet", "validation.parquet", "prompts.parquet", "data_card.json"],
    "train": ["adapter/adapter_model.safetensors", "adapter/adapter_config.json"],
    "evaluate": [
        "measures.json",
        "activations_base.safetensors",
        "activations_tuned.safetensors",
        "responses.jsonl",
    ],
}
# Where a stage leaves something for its next attempt, the kill comes after that: the attempt must go on from there.
LEFT_BEHIND = {
    "environment": "artifacts/base_model/*/manifest.json",
    "train": f"work/train-*/checkpoints/checkpoint-20/{MARKER}",
    "evaluate": "artifacts/base_activations/*/manifest.json",
}
_STARTS_WITHIN_S = 600.0


def is_working(output: Path, stage: str) -> bool:
    """Whether this stage is the one that works, and has left behind what it leaves."""
    folders = [
        entry for entry in (output / "work").glob("*-*") if entry.is_dir() and (entry / "files" / "logs").exists()
    ]
    newest = max(folders, key=lambda entry: entry.stat().st_mtime, default=None)
    if newest is None or newest.name.rsplit("-", 1)[0] != stage:
        return False
    return stage not in LEFT_BEHIND or any(output.glob(LEFT_BEHIND[stage]))


def kill_when(output: Path, condition: Callable[[], bool], delay_s: float) -> bool:
    """Start the pipeline, wait until it is so, kill everything `delay_s` later; False when it got past."""
    process = subprocess.Popen(
        pipeline_command(output, "tiny"),
        cwd=REPOSITORY,
        env=clean_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + _STARTS_WITHIN_S
    while not condition() and process.poll() is None:
        assert time.monotonic() < deadline, "the stage never started"
        time.sleep(0.02)
    time.sleep(delay_s)
    killed = process.poll() is None
    if killed:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return killed


@dataclass(frozen=True)
class KilledWalk:
    """`tiny` from nothing, started six times."""

    killed: tuple[bool, ...]
    last: Walk


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory) -> KilledWalk:
    output = tmp_path_factory.mktemp("disturbed") / "output"
    moments = random.Random(7)
    killed = [
        kill_when(output, lambda stage=stage: is_working(output, stage), moments.uniform(0.0, 1.0))
        for stage in STAGE_NAMES
    ]
    return KilledWalk(tuple(killed), finish(start(output, "tiny"), output))


def test_killed_anywhere_the_run_goes_on_to_its_end(disturbed):
    assert sum(disturbed.killed) >= 4, "the kills came too late to test anything"
    assert disturbed.last.code == 0, disturbed.last.stderr
    assert "Verdict: no damage found" in disturbed.last.stdout
    assert list((disturbed.last.output / "work").glob("*-*/")) == [], "a finished run leaves no scratch behind"


def test_training_went_on_from_its_checkpoint(disturbed):
    output = disturbed.last.output
    facts = json.loads((artifact_of(output, run_ids(output)["tiny"], "train") / "train.json").read_text())
    assert facts["resumed_from_step"] in {20, 40}


def test_two_walks_from_scratch_are_the_same_to_the_byte(walks, disturbed):
    """Whatever was computed before a kill or again after it: every byte comes from another process than the first's."""
    first, second = walks.tiny.output, disturbed.last.output
    run_id = run_ids(second)["tiny"]
    assert run_ids(second) == {"tiny": run_id}
    assert run_ids(first)["tiny"] == run_id
    compared = 0
    for stage, names in COMPARED.items():
        for name in names:
            left, right = (artifact_of(output, run_id, stage) / name for output in (first, second))
            assert left.read_bytes() == right.read_bytes(), f"{stage}/{name}"
            compared += 1
    # The rest of the summary is where and when it was made.
    left, right = (
        json.loads((artifact_of(output, run_id, "analyze") / "summary.json").read_text()) for output in (first, second)
    )
    assert {**left, "run": None} == {**right, "run": None}
    for model in ("base_model", "judge_model"):
        (left,), (right,) = ((output / "artifacts" / model).glob("*/model.safetensors") for output in (first, second))
        assert left.read_bytes() == right.read_bytes(), model
        compared += 1
    assert compared == 12


def test_a_damaged_artifact_is_named_and_made_again_by_its_own_stage(disturbed):
    """Last of this file: it damages the report."""
    output = disturbed.last.output
    report = artifact_of(output, run_ids(output)["tiny"], "analyze") / "report.md"
    good = report.read_bytes()
    report.write_bytes(good[:-10])
    again = finish(start(output, "tiny"), output)
    assert again.code == 0, again.stderr
    assert "report.md has" in again.stderr
    assert report.exists()
