"""The orchestrator's image holds what jobs.pipeline imports, at the stages' versions, and plans what they plan."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline_common import provenance
from pipeline_common.stages import REPOSITORY

REQUIREMENTS = REPOSITORY / "docker" / "requirements"
OURS = {"jobs", "pipeline_common"}


def locked(name: str) -> dict[str, str]:
    lines = (REQUIREMENTS / name).read_text(encoding="utf-8").splitlines()
    pins = [re.match(r"([A-Za-z0-9._-]+)==(\S+)", line) for line in lines]
    return {_canonical(pin.group(1)): pin.group(2) for pin in pins if pin}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def source_of(module: str) -> Path | None:
    path = REPOSITORY / module.replace(".", "/")
    found = [file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()]
    return found[0] if found else None


def third_party_imports(*roots: str) -> dict[str, set[str]]:
    """Package -> modules of ours that import it, over all that the roots reach, inside functions too."""
    waiting, seen, packages = list(roots), set(), {}
    while waiting:
        module = waiting.pop()
        source = source_of(module)
        if module in seen or source is None:
            continue
        seen.add(module)
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            for name in names:
                top = name.partition(".")[0]
                if top in OURS:
                    waiting.append(name)
                elif top not in sys.stdlib_module_names:
                    packages.setdefault(top, set()).add(module)
    assert len(seen) > 15
    return packages


def orchestrator_modules() -> list[str]:
    """All of jobs.pipeline, and the migrations, which Alembic finds by their folder."""
    files = [*(REPOSITORY / "jobs/pipeline").rglob("*.py"), *(REPOSITORY / "pipeline_common/migrations").rglob("*.py")]
    return [".".join(path.relative_to(REPOSITORY).with_suffix("").parts) for path in files]


def test_nothing_else_is_imported_anywhere_on_its_way():
    owners = importlib.metadata.packages_distributions()
    # What jobs.pipeline names is there, and named by the .in file itself, not brought in by chance.
    named = {
        _canonical(line) for line in (REQUIREMENTS / "orchestrator.in").read_text().splitlines() if line[:1].isalpha()
    }
    found = third_party_imports(*orchestrator_modules())
    assert {"sqlalchemy", "alembic", "pydantic", "yaml", "rich"} <= set(found)
    assert {
        package: modules for package, modules in found.items() if not {_canonical(o) for o in owners[package]} & named
    } == {}


def test_it_runs_with_nothing_else_installed(tmp_path):
    """The rest of this environment is hidden: an import of anything that the lock does not bring fails."""
    allowed = set(locked("orchestrator.txt"))
    owners = importlib.metadata.packages_distributions()
    hidden = sorted(name for name, dists in owners.items() if not {_canonical(d) for d in dists} & allowed)
    assert {"torch", "transformers", "numpy", "pyarrow", "jinja2"} <= set(hidden)
    program = (
        "import sys, runpy\n"
        f"hidden = set({hidden!r})\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in hidden:\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Hide())\n"
        f"for name in {orchestrator_modules()!r}:\n"
        "    if not name.endswith('__main__') and '.migrations.' not in name:\n"
        "        __import__(name)\n"
        f"sys.argv = ['pipeline', '--config', 'tiny', '--explain', 'runtime.output_dir={tmp_path}']\n"
        "runpy.run_module('jobs.pipeline', run_name='__main__', alter_sys=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("environment: ")


@pytest.mark.parametrize("lock", ["orchestrator.txt", "cuda.txt"])
def test_versions_are_those_of_the_stages(lock):
    runtime, other = locked("runtime.txt"), locked(lock)
    common = set(runtime) & set(other)
    assert len(common) >= 9
    assert {name: other[name] for name in common} == {name: runtime[name] for name in common}


def test_the_orchestrator_holds_nothing_that_the_stages_do_not():
    assert set(locked("orchestrator.txt")) - set(locked("runtime.txt")) == set()


def test_the_cuda_lock_holds_the_pinned_torch_and_only_its_family_beside_the_runtime():
    cuda = locked("cuda.txt")
    assert f"torch=={cuda['torch']}" in (REQUIREMENTS / "torch.in").read_text()
    family = set(cuda) - set(locked("runtime.txt"))
    assert {"torch", "triton", "nvidia-cudnn-cu13"} <= family
    assert [name for name in family if not name.startswith(("torch", "triton", "nvidia-", "cuda-"))] == []


def test_every_line_of_the_new_locks_is_hashed_and_names_no_host():
    for name in ("orchestrator.txt", "cuda.txt"):
        text = (REQUIREMENTS / name).read_text()
        entries = re.split(r"^(?=[a-z])", text, flags=re.MULTILINE)[1:]
        assert len(entries) >= 25
        assert all("--hash=sha256:" in entry for entry in entries)
        assert "://" not in text


def test_the_orchestrator_plans_with_the_packages_of_the_stages(tmp_path):
    """Two processes, as two images: the one that has the packages writes them down, the other reads them."""
    plan = [sys.executable, "-m", "jobs.pipeline", "--config", "tiny", "--dry-run"]

    def planned(**more: str) -> str:
        done = subprocess.run(plan, cwd=REPOSITORY, env={**os.environ, **more}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    here = provenance.package_versions()
    (same := tmp_path / "same.json").write_text(json.dumps(here))
    (other := tmp_path / "other.json").write_text(json.dumps({**here, "torch": "2.13.0+cu130"}))
    assert planned(STAGE_PACKAGES=str(same)) == planned()
    assert planned(STAGE_PACKAGES=str(other)) != planned()


def test_an_image_says_its_commit_and_version(monkeypatch):
    provenance.commit.cache_clear()
    provenance.version.cache_clear()
    try:
        monkeypatch.setenv("GIT_COMMIT", "0123abc")
        monkeypatch.setenv("GIT_DIRTY", "true")
        monkeypatch.setenv("PIPELINE_VERSION", "9.8.7")
        monkeypatch.setenv("IMAGE_DIGEST", "sha256:feed")
        origin = provenance.collect(provenance.now(), attempt=1)
    finally:
        provenance.commit.cache_clear()
        provenance.version.cache_clear()
    assert {name: origin[name] for name in ("commit", "dirty", "version", "image_digest")} == {
        "commit": "0123abc",
        "dirty": True,
        "version": "9.8.7",
        "image_digest": "sha256:feed",
    }


def test_without_an_image_the_version_is_the_projects(monkeypatch):
    monkeypatch.delenv("PIPELINE_VERSION", raising=False)
    provenance.version.cache_clear()
    assert f'version = "{provenance.version()}"' in (REPOSITORY / "pyproject.toml").read_text()
