"""Who may import whom, read from the code itself; and what is loaded before a mistake is answered."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline_common.stages import REPOSITORY, STAGE_NAMES

HEAVY = {"torch", "transformers", "peft", "trl", "bitsandbytes", "datasets", "accelerate"}
# Rooms where model libraries may be named at all; prepare names only `datasets`, to read the hub.
HEAVY_ROOMS = ("pipeline_common/gpu/", "jobs/train/", "jobs/evaluate/", "jobs/environment/", "jobs/prepare/hub")
CODE = sorted(path for room in ("jobs", "pipeline_common", "k8s") for path in (REPOSITORY / room).rglob("*.py"))


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
    return names


def test_the_walk_sees_the_whole_house():
    rooms = {path.relative_to(REPOSITORY).parts[:2] for path in CODE}
    assert len(CODE) > 50
    assert {
        ("jobs", name) for name in (*STAGE_NAMES, "pipeline", "calibrate", "compare", "export", "prune", "schemas")
    } <= rooms


def test_common_code_never_imports_jobs():
    guilty = [
        str(path)
        for path in CODE
        if "pipeline_common" in path.parts and any(name.split(".")[0] == "jobs" for name in imports(path))
    ]
    assert guilty == []


def test_no_stage_imports_another():
    guilty = []
    for path in CODE:
        parts = path.relative_to(REPOSITORY).parts
        if parts[0] == "jobs" and len(parts) > 2 and parts[1] not in {"calibrate", "compare"}:
            others = {name.split(".")[1] for name in imports(path) if name.startswith("jobs.")} - {parts[1]}
            guilty += [f"{path}: {other}" for other in others]
    assert guilty == []


def test_calibration_drives_the_stages_and_shares_the_verdict():
    """It runs the shipped stages many times in one process, asks the shipped rule, and plants answers for the shipped
    metric; it looks into nothing else.

    With a process per stage, as the pipeline starts them, importing libraries would take longer than the fine-tunes.
    """
    allowed = {f"jobs.{name}.stage" for name in ("environment", "prepare", "train", "evaluate")}
    allowed |= {"jobs.analyze.verdict", "jobs.analyze.figures.style", "jobs.evaluate.metric.simulation"}
    rooms = [path for path in CODE if path.relative_to(REPOSITORY).parts[:2] == ("jobs", "calibrate")]
    foreign = {
        name
        for path in rooms
        for name in imports(path)
        if name.startswith("jobs.") and not name.startswith("jobs.calibrate")
    }
    assert len(rooms) > 5
    assert foreign == allowed


def test_the_comparison_shares_how_a_report_is_written_and_how_pairs_are_compared():
    """It reads finished runs alone; from the stages it has the report's building blocks and the metric's pure maths."""
    allowed = {f"jobs.analyze.{name}" for name in ("blocks", "figures.style", "formatting", "report")} | {
        "jobs.analyze"
    }
    allowed |= {f"jobs.evaluate.metric.{name}" for name in ("bootstrap", "gram", "indices", "paired", "role_scores")}
    rooms = [path for path in CODE if path.relative_to(REPOSITORY).parts[:2] == ("jobs", "compare")]
    foreign = {
        name
        for path in rooms
        for name in imports(path)
        if name.startswith("jobs.") and not name.startswith("jobs.compare")
    }
    assert len(rooms) > 5
    assert foreign == allowed


def test_model_libraries_stay_in_their_rooms():
    guilty = [
        f"{path.relative_to(REPOSITORY)}: {name}"
        for path in CODE
        for name in imports(path)
        if name.split(".")[0] in HEAVY and not path.relative_to(REPOSITORY).as_posix().startswith(HEAVY_ROOMS)
    ]
    assert guilty == []


def test_rooms_have_names_that_say_something():
    vague = {"utils", "helpers", "manager", "misc", "common"}
    assert [path for path in CODE if path.stem in vague] == []


@pytest.mark.parametrize("stage", [*STAGE_NAMES, "pipeline"])
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["--config", "tiny", "train.learning_rate=-1"], 2),
        (["--config", "tiny", "--dry-run"], 0),
        (["--config", "tiny", "prepare.dataset=./missing.csv"], 3),
    ],
    ids=["help", "bad value", "dry run", "missing file"],
)
def test_help_mistakes_and_dry_runs_load_no_model_library(stage, arguments, code):
    program = (
        "import runpy, sys\n"
        f"sys.argv = ['{stage}', *{arguments!r}]\n"
        "try:\n"
        f"    runpy.run_module('jobs.{stage}', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as stop:\n"
        f"    loaded = sorted({HEAVY!r} & set(sys.modules))\n"
        "    print('CODE', stop.code or 0, 'LOADED', loaded, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.stderr.splitlines()[-1] == f"CODE {code} LOADED []", done.stderr
    assert "Traceback" not in done.stderr
