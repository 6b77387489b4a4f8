"""The make targets for a cluster: each is one command a person could type."""

from __future__ import annotations

import os
import subprocess

import pytest

from pipeline_common.stages import REPOSITORY


def would_run(*arguments: str) -> str:
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    for name in ("PROFILE", "STAGE", "RUN", "ARGS", "INDEX"):
        outside.pop(name, None)
    done = subprocess.run(
        ["make", "--dry-run", *arguments], cwd=REPOSITORY, env=outside, capture_output=True, text=True, check=True
    )
    return " ".join(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["job", "STAGE=evaluate"], 'job --stage "evaluate"'),
        (["job", "STAGE=train", "PROFILE=tiny"], 'job --stage "train" --config tiny'),
        (
            ["job", "STAGE=train", "RUN=mine", "ARGS=train.max_steps=3"],
            'job --stage "train" --run-id mine train.max_steps=3',
        ),
        (["pipeline", "ARGS=--force"], "pipeline --force"),
        (["status"], "status"),
        (["logs"], 'logs --stage ""'),
        (["logs", "STAGE=train", "INDEX=1"], 'logs --stage "train" --index 1'),
        (["cancel", "RUN=0123abcd"], 'cancel --stage "" --run-id 0123abcd'),
    ],
)
def test_a_target_is_one_command(arguments, command):
    assert would_run(*arguments) == f"venv_FntngEval/bin/python -m jobs.pipeline.cluster {command}"
