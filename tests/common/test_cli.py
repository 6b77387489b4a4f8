"""The command line as a person meets it: messages, exit codes, no traceback for a person's mistake."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import yaml

from pipeline_common.stages import REPOSITORY, STAGE_NAMES


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {
        name: value for name, value in os.environ.items() if name not in {"ARTIFACTS_URI", "DATABASE_URL", "RUN_ID"}
    }
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
        env={**clean, **environment},
    )


@pytest.mark.parametrize("profile", ["tiny", "tiny-harmful", "smollm", "llama3-8b"])
def test_a_dry_run_prints_the_configuration_inputs_and_outputs(profile, tmp_path):
    done = run("jobs.pipeline", "--config", profile, "--dry-run", f"runtime.output_dir={tmp_path}/out")
    assert done.returncode == 0, done.stderr
    document = yaml.safe_load(done.stdout)
    assert list(document["stages"]) == list(STAGE_NAMES)
    assert document["config"]["profile"] == profile
    assert document["stages"]["train"]["inputs"] == [
        document["stages"]["environment"]["artifact"],
        document["stages"]["prepare"]["artifact"],
    ]
    assert "adapter/" in document["stages"]["train"]["outputs"]
    assert not (tmp_path / "out").exists()


def test_options_and_overrides_mix_in_any_order(tmp_path):
    for order in (["--dry-run", "train.max_steps=7"], ["train.max_steps=7", "--dry-run"]):
        done = run("jobs.train", "--config", "tiny", *order, f"runtime.output_dir={tmp_path}")
        assert yaml.safe_load(done.stdout)["config"]["train"]["max_steps"] == 7


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["train.lerning_rate=1"], 2, "did you mean 'train.learning_rate'?"),
        (["train.learning_rate=-0.1"], 2, "greater than 0"),
        (["prepare.dataset=./nowhere.parquet"], 3, "nowhere.parquet does not exist"),
    ],
)
def test_a_persons_mistake_gets_its_exit_code_and_no_traceback(arguments, code, words, tmp_path):
    done = run("jobs.pipeline", "--config", "tiny", *arguments, f"runtime.output_dir={tmp_path}/out")
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "artifacts").exists()


@pytest.mark.parametrize("run_id", ["../x", "team/x", "a b", "x" * 129, ".hidden"])
def test_a_name_that_the_stores_cannot_keep_is_told_before_anything_runs(run_id, tmp_path):
    done = run("jobs.environment", "--config", "tiny", "--run-id", run_id, f"runtime.output_dir={tmp_path}/out")
    assert done.returncode == 2
    assert "cannot be the name of a run: expected at most 128 letters" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_configuration_whose_name_makes_no_run_id_says_how_to_name_it(tmp_path):
    (path := tmp_path / "my run.yaml").write_text("extends: tiny\n")
    done = run("jobs.pipeline", "--config", str(path), "--dry-run")
    assert done.returncode == 2
    assert "rename the file, or set `profile: NAME`" in done.stderr
    path.write_text("extends: tiny\nprofile: mine\n")
    assert run("jobs.pipeline", "--config", str(path), "--dry-run").returncode == 0


def test_a_missing_input_is_exit_3_and_names_the_command(tmp_path):
    done = run("jobs.analyze", "--config", "tiny", f"runtime.output_dir={tmp_path}/out")
    assert done.returncode == 3
    assert "python -m jobs.environment --config tiny" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_read_only_output_folder_is_exit_2(tmp_path):
    # A file where the folder should be stops root as well, whom permissions do not stop.
    (tmp_path / "out").write_text("")
    done = run("jobs.environment", "--config", "tiny", f"runtime.output_dir={tmp_path}/out")
    assert done.returncode == 2
    assert "runtime.output_dir" in done.stderr
    assert "Traceback" not in done.stderr


def test_usage_without_a_configuration_is_exit_2():
    done = run("jobs.train")
    assert done.returncode == 2
    assert "--config" in done.stderr


def test_a_bad_database_address_is_exit_2_and_never_shown(tmp_path):
    done = run(
        "jobs.environment",
        "--config",
        "tiny",
        f"runtime.output_dir={tmp_path}/out",
        DATABASE_URL="mysql://u:hunter2@h/d",
    )
    assert done.returncode == 2
    assert "postgresql+psycopg2://" in done.stderr
    assert "hunter2" not in done.stderr
