"""Every page: its links lead somewhere, and the commands, options, settings, variables and files it names exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

from pipeline_common.config import load_config, profile_names, valid_keys
from pipeline_common.errors import ConfigError
from pipeline_common.stages import REPOSITORY, STAGE_NAMES

PAGES = sorted([REPOSITORY / "README.md", REPOSITORY / "tests/benchmarks/README.md", *REPOSITORY.glob("docs/*.md")])
NAMES = [page.relative_to(REPOSITORY).as_posix() for page in PAGES]
MAKEFILE = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
SECTIONS = "model|environment|prepare|train|evaluate|analyze|artifacts|database|runtime"
# Settings that are valid only together with another.
TOGETHER = {"evaluate.judge.kind=endpoint": ["evaluate.judge.base_url=http://127.0.0.1:8000/v1"]}
# Read by programs that are not part of the environment, and so cannot be searched here.
READ_ELSEWHERE = re.compile("(?:MLFLOW|WANDB|NVIDIA)_")
# Written in capitals, and no variable.
WORDS = {"SELECT", "INSERT", "UPDATE", "DELETE", "EDIT", "NULL", "NUL", "CREATE", "LOCK_EX", "MIT"}

pages = pytest.mark.parametrize("page", PAGES, ids=NAMES)


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def spans_of(page: Path) -> list[str]:
    """What is set as code: spans, lines of indented blocks and of fenced ones."""
    text = text_of(page)
    fenced = re.findall(r"^```[a-z]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^    (.+)$", rest, re.MULTILINE)
    inline = re.findall(r"`([^`\n]+)`", rest)
    return [*inline, *indented, *(line for block in fenced for line in block.splitlines())]


def anchors_of(page: Path) -> set[str]:
    """Ids of the headings, as the usual renderers make them."""
    headings = re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@cache
def help_of(module: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"python -m {module} --help: {done.stderr}"
    return done.stdout


@cache
def sources() -> str:
    """Everything of this repository that runs."""
    rooms = ("jobs", "pipeline_common", "docker", "k8s", "tests", "Makefile", "Dockerfile.gpu", ".ci")
    listed = subprocess.run(["git", "ls-files", *rooms], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    files = [REPOSITORY / name for name in listed.stdout.splitlines() if not name.endswith((".md", ".svg", ".png"))]
    return "\n".join(path.read_text(encoding="utf-8", errors="ignore") for path in files if path != Path(__file__))


@cache
def libraries() -> str:
    """The packages that read variables of their own."""
    import botocore
    import huggingface_hub
    import transformers

    files = [Path(botocore.__file__).parent / "configprovider.py", Path(botocore.__file__).parent / "credentials.py"]
    files += [Path(huggingface_hub.__file__).parent / "constants.py", Path(botocore.__file__).parent / "session.py"]
    files += list((Path(transformers.__file__).parent / "integrations").glob("integration_utils.py"))
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


@cache
def is_read(variable: str) -> bool:
    """Whether our code, or a library that reads variables, names it."""
    return re.search(rf"\b{variable}\b", sources()) is not None or variable in libraries()


def commands_of(page: Path) -> list[str]:
    """Lines and spans that call make or one of our modules, without their comments."""
    found = []
    for span in spans_of(page):
        command = re.sub(r"\s+#.*$", "", span.strip()).removeprefix("$ ")
        match = re.search(r"(?:^|[ =/])(make [a-z][a-z-]*\b.*|python3? -m (?:jobs|tests|k8s)\.\S+.*)", command)
        if match:
            found.append(match.group(1))
    return found


def test_every_page_is_seen_and_reached():
    """By a link, or by its name in the README's tree."""
    readme = REPOSITORY / "README.md"
    assert len(PAGES) >= 10
    linked = {
        (page.parent / target).resolve()
        for page in PAGES
        for target in re.findall(r"\]\((?!http)([^)#\s]+)", text_of(page))
    }
    named = {Path(name).name for name in re.findall(r"[\w/-]+\.md", text_of(readme))}
    lost = [page for page in PAGES if page != readme and page.resolve() not in linked and page.name not in named]
    assert lost == []


@pages
def test_links_and_anchors_resolve(page):
    for target, _, anchor in re.findall(r"\]\((?!http)([^)#\s]*)(#([^)\s]+))?\)", text_of(page)):
        there = (page.parent / target).resolve() if target else page
        assert there.exists(), f"{page.name}: {target}"
        assert there.is_relative_to(REPOSITORY)
        if anchor:
            assert anchor in anchors_of(there), f"{page.name}: {target}#{anchor}"


@pages
def test_make_targets_their_variables_and_their_options_exist(page):
    variables = set(re.findall(r"^([A-Z]+) \?=", MAKEFILE, re.MULTILINE))
    for command in commands_of(page):
        if not command.startswith("make "):
            continue
        words = shlex.split(command.replace("...", "x"), posix=True)
        targets = [word for word in words[1:] if re.fullmatch(r"[a-z][a-z-]*", word)][:1]
        for target in targets:
            assert target in TARGETS, f"{page.name}: {command}"
        for word in words[1:]:
            name, equals, value = word.partition("=")
            if not (equals and name.isupper()):
                continue
            # A script that the target calls may read one that the Makefile passes by.
            assert name in variables or is_read(name), f"{page.name}: {command}"
            if name == "PROFILE":
                assert value in profile_names() or "|" in value, command
            if name == "STAGE" and value:
                assert value in STAGE_NAMES, command
            if name == "ARGS":
                check_options(modules_of(targets[0]), value, f"{page.name}: {command}")


def modules_of(target: str) -> list[str]:
    """The modules that a target calls; the stages too, where one can be named."""
    recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert recipe is not None, target
    if target == "run":
        return ["jobs.pipeline", "jobs.train"]
    if "$(cluster)" in recipe.group(1):
        return ["jobs.pipeline.cluster"]
    return re.findall(r"-m ([\w.]+)", recipe.group(1))


def check_options(modules: list[str], arguments: str, where: str) -> None:
    for option in re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", arguments):
        if option == "--help":
            continue
        assert any(re.search(rf"{option}\b", help_of(module)) for module in modules), f"{where}: {option}"


@pages
def test_modules_and_their_options_exist(page):
    for command in commands_of(page):
        match = re.match(r"python3? -m ([\w.]+)(.*)", command)
        if not match or "<" in command:
            continue
        module = match.group(1).rstrip(".")
        path = REPOSITORY / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), f"{page.name}: {command}"
        check_options([module], match.group(2), f"{page.name}: {command}")


@pages
def test_settings_exist_and_their_values_are_valid(page):
    keys = set(valid_keys())
    sections = {key.rpartition(".")[0] for key in keys}
    for span in spans_of(page):
        for key, value in re.findall(
            rf"(?<![\w./-])((?:{SECTIONS})\.[a-z_.]*[a-z])(=\[[^\]]*\]|=[^\s\"',;)|]+)?", span
        ):
            # Files, database columns and modules look like settings.
            suffixed = key.rpartition(".")[2] in {"json", "md", "py", "yaml", "jsonl", "parquet", "db", "svg", "txt"}
            if suffixed or (key.split(".")[0] == "environment" and not value and key not in keys | sections):
                continue
            assert key in keys | sections, f"{page.name}: {key} in {span!r}"
            if value and not re.search(r"<|\.\.\.|/path|NAME|^=\w$", value):
                check_value(f"{key}{value}", f"{page.name}: {span!r}")


def check_value(override: str, where: str) -> None:
    try:
        load_config("tiny", [override, *TOGETHER.get(override, [])])
    except ConfigError as error:
        raise AssertionError(f"{where}: {error}") from error


@pages
def test_variables_are_read_by_something(page):
    for span in spans_of(page):
        for name in re.findall(r"(?<![\w$<>/.-])([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)(?![\w-])", span):
            if name in WORDS or READ_ELSEWHERE.match(name):
                continue
            assert is_read(name), f"{page.name}: {name} in {span!r}"


@pages
def test_files_of_this_repository_exist(page):
    for span in spans_of(page):
        for name in re.findall(r"(?<![\w/<])((?:jobs|pipeline_common|tests|docs|docker|k8s)/[\w./*-]*[\w*])", span):
            made = name in (REPOSITORY / ".gitignore").read_text().splitlines()
            assert made or any(REPOSITORY.glob(name.rstrip("/"))), f"{page.name}: {name}"


@pages
def test_configuration_files_shown_are_valid(page, tmp_path):
    """Blocks that begin with `extends:`; others are another program's."""
    for block in re.findall(r"^```yaml\n(.*?)^```", text_of(page), re.MULTILINE | re.DOTALL):
        parsed = yaml.safe_load(block)
        assert isinstance(parsed, dict), f"{page.name}: {block}"
        if "extends" in parsed:
            (shown := tmp_path / "mine.yaml").write_text(block)
            assert load_config(str(shown)).profile in {"mine", parsed.get("profile")}
