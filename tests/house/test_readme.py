"""Every command and name in the README is real."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from jobs.analyze.stage import DAMAGED_EXIT_CODE
from pipeline_common.cli import build_parser
from pipeline_common.config import valid_keys
from pipeline_common.database import Database
from pipeline_common.errors import EXIT_INTERRUPTED, PipelineError
from pipeline_common.stages import REPOSITORY, STAGE_NAMES, STAGES
from tests.compare.made_runs import MadeRun, make_runs

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"(?:^    |`)(make [a-z][^`#\n]*?)\s*(?:`|#|$)", README, re.MULTILINE)))
# Run by the continuous integration itself, which a test reads below, or by `make test`, which is this.
ELSEWHERE = {"make check", "make test"}


def make(command: str, *more: str, outside: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command as a person would, not as a part of the `make test` that may be running this."""
    outside = {
        **{name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}},
        **(outside or {}),
    }
    return subprocess.run(
        [*_split(command), *more], cwd=REPOSITORY, env=outside, capture_output=True, text=True, check=False
    )


def make_database(output: Path, run_id: str) -> None:
    """An embedded database with one run."""
    database = Database(f"sqlite:///{output}/results.db", 5)
    database.migrate()
    run = {"run_id": run_id, "profile": "tiny", "created_at": "2026-01-01T00:00:00+00:00", "base_model": "m"}
    database.upsert("experiments", [{**run, "dataset": "d", "prompts": "p", "config": {}}])


def _split(command: str) -> list[str]:
    import shlex

    return shlex.split(command)


def _arguments(command: str) -> str:
    """What the command passes in ARGS."""
    return next((part.removeprefix("ARGS=") for part in _split(command) if part.startswith("ARGS=")), "")


def test_the_readme_names_commands_and_ci_runs_its_own():
    assert len(COMMANDS) >= 8
    assert COMMANDS.count("make run") == 1
    ran = (REPOSITORY / ".ci" / "run").read_text()
    assert all(command in ran for command in ELSEWHERE)


def test_run_takes_every_stage_and_lists_them_for_a_mistyped_one():
    for stage in ("", *STAGE_NAMES):
        done = make(f"make -n run STAGE={stage}")
        assert (done.returncode, f"-m jobs.{stage or 'pipeline'} --config tiny" in done.stdout) == (0, True)
    done = make("make -n run STAGE=evalute")
    assert done.returncode == 2
    assert f"no stage is called 'evalute'; the stages are {' '.join(STAGE_NAMES)}" in done.stderr


@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in ELSEWHERE])
def test_the_command_runs(command, tmp_path):
    """`run` and `calibrate` as dry runs (the walks run them), `bench` for its quickest group, `clean` on a copy."""
    if command == "make clean":
        shutil.copy(REPOSITORY / "Makefile", tmp_path)
        (tmp_path / "output").mkdir()
        done = subprocess.run(["make", "clean"], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert not (tmp_path / "output").exists()
    elif command.startswith("make run"):
        (rows := tmp_path / "rows.parquet").write_bytes(b"")
        (prompts := tmp_path / "prompts.csv").write_bytes(b"")
        command = command.replace("rows.parquet", str(rows)).replace("prompts.csv", str(prompts))
        done = make(command, f"ARGS={_arguments(command)} --dry-run runtime.output_dir={tmp_path}/output")
        assert "run_id:" in done.stdout, done.stderr
    elif command.startswith("make explain"):
        done = make(command)
        assert "environment: " in done.stdout
    elif "MERGED=" in command:
        # Tested with a trained model elsewhere; here is none, and that is said in one line.
        done = make(command, f"ARGS=runtime.output_dir={tmp_path}/output")
        assert done.returncode == 2
        assert "holds no run called" in done.stderr
        return
    elif command.startswith("make export"):
        make_database(
            tmp_path / "output", next((part[4:] for part in _split(command) if part.startswith("RUN=")), "any")
        )
        done = make(command, f"ARGS=runtime.output_dir={tmp_path}/output")
        assert "1 experiments" in done.stdout
        assert (tmp_path / "output" / "centralized.db").exists()
    elif command.startswith("make prune"):
        make_database(tmp_path / "output", "any")
        done = make(command, f"ARGS={_arguments(command)} runtime.output_dir={tmp_path}/output")
        assert "would remove 0 folders" in done.stdout
    elif command.startswith("make compare"):
        named = next((part.removeprefix("RUNS=").split() for part in _split(command) if part.startswith("RUNS=")), [])
        make_runs(tmp_path / "output", [MadeRun(run_id) for run_id in named or ["first", "second"]])
        done = make(command, f"ARGS=runtime.output_dir={tmp_path}/output")
        assert done.stdout.splitlines()[-1].endswith("/comparison.html"), done.stderr
    elif command.startswith(("make job", "make pipeline", "make logs", "make cancel")):
        # Tested against a cluster elsewhere; here is none, and that is said in one line.
        done = make(command, outside={"KUBECONFIG": str(tmp_path / "none")})
        assert done.returncode == 2
        assert "no Kubernetes cluster is configured here" in done.stderr
        return
    elif command == "make bench":
        done = make(command, "ARGS=--only help")
        assert "| `python -m jobs.train --help` |" in done.stdout
    elif command.startswith("make calibrate"):
        done = make(command, f"ARGS={_arguments(command)} --dry-run --output {tmp_path}")
        lines = done.stdout.splitlines()
        # Three bases, eleven kinds of rows, ten seeds.
        assert sum(line.startswith("base-") for line in lines) == 330
        # Synthetic: 18 coverages, 14 means, three label noises, three shares of duplicates, 24 drops.
        assert len(lines) == 330 + 62
    else:
        done = make(command)
    assert done.returncode == 0, done.stderr


def test_help_lists_every_target():
    done = make("make help")
    targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert len(targets) > 8
    for target in targets:
        assert f"make {target} " in done.stdout


def test_settings_in_the_readme_exist():
    keys = set(valid_keys())
    sections = {key.rpartition(".")[0] for key in keys}
    named = set(
        re.findall(
            r"\b((?:model|environment|prepare|train|evaluate|analyze|artifacts|database|runtime)\.[a-z_.]+[a-z])\b",
            README,
        )
    )
    named -= {name for name in named if name.endswith((".json", ".md", ".py", ".yaml", ".jsonl", ".parquet"))}
    assert len(named) >= 8
    assert named <= keys | sections


def test_every_exit_code_is_told():
    told = re.findall(r"^\| (\d+) \| ", README.split("## Exit codes")[1].split("## ")[0], re.MULTILINE)
    kinds = {kind.exit_code for kind in (PipelineError, *PipelineError.__subclasses__())}
    assert {int(code) for code in told} == {0, DAMAGED_EXIT_CODE, EXIT_INTERRUPTED, *kinds}
    told_by_help = build_parser("any", "").epilog.removeprefix("Exit codes: ")
    assert re.findall(r"(?:^|; )(\d+) ", told_by_help) == told


def test_the_stage_table_names_every_output():
    for stage in STAGES:
        for output in stage.outputs:
            name = output.replace("activations_base", "activations_*").replace("activations_tuned", "activations_*")
            assert f"`{name}`" in README, f"{stage.name}: {output}"


def test_the_tree_is_true():
    tree = README.split("## The tree")[1].split("## ")[0]
    for folder in (
        *(f"jobs/{name}" for name in (*STAGE_NAMES, "pipeline", "calibrate", "compare", "export", "prune", "schemas")),
        "pipeline_common",
        "docker/requirements",
        "tests",
    ):
        assert (REPOSITORY / folder).is_dir()
        assert folder.rpartition("/")[2] + "/" in tree
    for named in re.findall(r"([a-z0-9_]+)/(?=[ ,·])", tree):
        assert list(REPOSITORY.glob(f"**/{named}")) or named in {"docker"}, named
    for file in re.findall(r"[\w-]+\.(?:gpu|sh|hcl|py)\b", tree):
        assert list(REPOSITORY.glob(file)) or list(REPOSITORY.glob(f"docker/**/{file}")), file


def test_links_stay_inside_the_repository():
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (REPOSITORY / target).exists(), target
