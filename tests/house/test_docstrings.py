"""Docstrings are complete, true to their signatures, and shown by Python's own tool without a model library."""

from __future__ import annotations

import re
import subprocess
import sys

from pipeline_common.stages import REPOSITORY
from tests.house.test_import_law import CODE, HEAVY_ROOMS

RENDER = """
import importlib, pydoc, sys
for name in sys.argv[1:]:
    text = pydoc.render_doc(importlib.import_module(name), renderer=pydoc.plaintext)
    assert len(text.splitlines()) > 5, name
    print(name)
print("LOADED", sorted({"torch", "transformers"} & set(sys.modules)))
"""


def module_names() -> list[str]:
    """Modules outside the rooms of the model libraries."""
    paths = [path.relative_to(REPOSITORY).as_posix() for path in CODE]
    named = [path for path in paths if not path.startswith(HEAVY_ROOMS) and "/versions/" not in path]
    # Alembic runs it; it cannot be imported.
    return [re.sub(r"(/__init__)?\.py$", "", path).replace("/", ".") for path in named if not path.endswith("/env.py")]


def test_pydoc_renders_every_module():
    names = module_names()
    assert len(names) > 120
    done = subprocess.run(
        [sys.executable, "-c", RENDER, *names], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [*names, "LOADED []"]


def test_what_a_docstring_describes_is_in_the_signature():
    """`make check` asks for every public docstring, in Google's style; here none describes what is not there."""
    rules = ["--preview", "--select", "D417,DOC102", "--output-format", "concise"]
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", *rules, "jobs", "pipeline_common", "k8s"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
