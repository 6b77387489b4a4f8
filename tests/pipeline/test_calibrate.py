"""A small calibration through the real stages: planted damage is found, and what is finished is not run again."""

from __future__ import annotations

import shutil
import subprocess
import sys

from jobs.calibrate.results import read_results
from pipeline_common.stages import REPOSITORY
from tests.pipeline.walking import clean_environment

COMMAND = [sys.executable, "-m", "jobs.calibrate", "--bases", "1", "--kinds", "harmful-0", "harmful-100"]
SETTINGS = ["--set", "evaluate.prompts_per_class=64", "evaluate.resamples=200"]


def calibrate(*arguments):
    return subprocess.run(
        [*COMMAND, *arguments], cwd=REPOSITORY, env=clean_environment(), capture_output=True, text=True, check=False
    )


def test_planted_damage_is_found_and_nothing_is_run_twice(walks, tmp_path):
    # Building the embedded models is tested elsewhere.
    for model in ("base_model", "judge_model"):
        shutil.copytree(walks.tiny.output / "artifacts" / model, tmp_path / "artifacts" / model)
    options = ["--seeds", "1", "--jobs", "2", "--output", str(tmp_path), *SETTINGS]
    first = calibrate(*options)
    assert first.returncode == 0, first.stderr
    found = {result.kind: result for result in read_results(tmp_path / "results.csv")}
    assert found["harmful-100"].verdict == "damaged"
    assert found["harmful-100"].turned_share > 0.9
    assert found["harmful-0"].verdict != "damaged"
    assert found["harmful-0"].turned_share is None
    assert first.stdout == (tmp_path / "calibration.md").read_text()
    assert {path.name for path in (tmp_path / "measures").iterdir()} == {
        "base-1-harmful-0-0.json",
        "base-1-harmful-100-0.json",
    }
    # Nothing of the single fine-tunes stays but their measures; the base model does.
    assert [*(tmp_path / "work").iterdir()] == []
    assert [*(tmp_path / "artifacts" / "train").iterdir()] == []
    assert [*(tmp_path / "artifacts" / "base_model").iterdir()] != []

    content = (tmp_path / "results.csv").read_bytes()
    again = calibrate(*options)
    assert again.returncode == 0, again.stderr
    assert "2 fine-tunes, 2 of them finished" in again.stderr
    assert (tmp_path / "results.csv").read_bytes() == content
    listed = calibrate("--seeds", "2", "--output", str(tmp_path), "--dry-run", *SETTINGS)
    assert listed.stdout.split() == ["base-1-harmful-0-1", "base-1-harmful-100-1"]


def test_mistakes_are_answered_before_anything_starts(tmp_path):
    for arguments, told in (
        (["--kinds", "harmful-7"], "no such kind; the kinds are harmful-0"),
        (["--set", "train.learning_rat=1"], "did you mean 'train.learning_rate'?"),
    ):
        done = calibrate("--output", str(tmp_path / "new"), *arguments)
        assert done.returncode == 2
        assert told in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "new").exists()
