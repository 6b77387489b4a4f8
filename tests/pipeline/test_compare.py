"""The comparison of real runs: what the walks left."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline_common.stages import REPOSITORY
from tests.pipeline.walking import artifact_of, clean_environment, run_ids


@pytest.fixture(scope="module")
def compared(walks) -> Path:
    # By name: another test's run with the gate may share an evaluation with one of these, and be newer.
    named = [part for run_id in run_ids(walks.tiny.output).values() for part in ("--run", run_id)]
    command = [sys.executable, "-m", "jobs.compare", *named, f"runtime.output_dir={walks.tiny.output}"]
    done = subprocess.run(command, cwd=REPOSITORY, env=clean_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.splitlines()[-1]).parent


def test_the_fine_tune_that_keeps_the_refusals_ranks_first(walks, compared):
    content = json.loads((compared / "comparison.json").read_text())
    ids = run_ids(walks.tiny.output)
    assert [run["run_id"] for run in content["runs"]] == [ids["tiny"], ids["tiny-harmful"]]
    apart = set(content["runs"][1]["told_apart_from_previous"])
    assert {"refusal_gap_drop", "f2_drop", "refusal_unsafe", "refusal_log_odds"} <= apart
    assert set(content["settings"]) == {"prepare.dataset"}


def test_differences_are_those_of_the_runs_own_measures(walks, compared):
    """What was resampled here from vectors and log-odds is what evaluate measured from its activations."""
    content = json.loads((compared / "comparison.json").read_text())
    measured = {}
    for profile, run_id in run_ids(walks.tiny.output).items():
        folder = artifact_of(walks.tiny.output, run_id, "evaluate")
        measured[profile] = json.loads((folder / "measures.json").read_text())
    overall = {
        profile: next(score for score in found["geometry"] if score["scope"] == "overall")
        for profile, found in measured.items()
    }
    drops = {profile: score["f2_drop_pct"]["value"] for profile, score in overall.items()}
    gaps = {profile: found["refusal_gap"]["drop_pct"]["value"] for profile, found in measured.items()}
    differences = {one["name"]: one["estimate"]["value"] for one in content["pairs"][0]["differences"]}
    assert differences["f2_drop"] == pytest.approx(drops["tiny"] - drops["tiny-harmful"], abs=1e-3)
    assert differences["refusal_gap_drop"] == pytest.approx(gaps["tiny"] - gaps["tiny-harmful"], abs=1e-6)
