"""Reads a Dockerfile and a .dockerignore, and finds what an image of this project must not have.

Every check takes text, so that a test can break it, and returns the problems in words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

SECRET_NAME = re.compile(r"TOKEN|PASSWORD|PASSWD|SECRET|CREDENTIAL|API_?KEY|ACCESS_?KEY|INDEX_URL", re.IGNORECASE)
URL_WITH_PASSWORD = re.compile(r"://[^/\s:@]+:[^/\s@]+@")


@dataclass(frozen=True)
class Instruction:
    keyword: str
    flags: tuple[str, ...]
    value: str


@dataclass
class Stage:
    name: str
    parent: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, *keywords: str) -> list[Instruction]:
        return [instruction for instruction in self.instructions if instruction.keyword in keywords]


@dataclass
class Dockerfile:
    arguments: dict[str, str]
    stages: dict[str, Stage]

    def lineage(self, name: str) -> list[Stage]:
        """The stage and what it is built on, nearest first."""
        chain = []
        while name in self.stages:
            chain.append(self.stages[name])
            name = self.stages[name].parent
        return chain

    def last(self, name: str, keyword: str) -> str | None:
        """Value of the last such instruction that the stage has or inherits."""
        for stage in self.lineage(name):
            if found := stage.all(keyword):
                return found[-1].value
        return None


def parse(text: str) -> Dockerfile:
    arguments: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    current: Stage | None = None
    for line in logical_lines(text):
        keyword, _, rest = line.partition(" ")
        flags = []
        while match := re.match(r"\s*(--[a-z]+(?:=\S+)?)\s+", rest):
            flags.append(match.group(1))
            rest = rest[match.end() :]
        instruction = Instruction(keyword.upper(), tuple(flags), rest.strip())
        if instruction.keyword == "FROM":
            parent, _, name = re.sub(r"\s+(?i:as)\s+", "\n", instruction.value).partition("\n")
            current = stages[name or f"#{len(stages)}"] = Stage(name, parent)
        elif current is None:
            assert instruction.keyword == "ARG", line
            name, _, default = instruction.value.partition("=")
            arguments[name] = default
        else:
            current.instructions.append(instruction)
    return Dockerfile(arguments, stages)


def logical_lines(text: str) -> Iterator[str]:
    """Instructions with their continuations joined; comments and empty lines gone."""
    pending = ""
    for line in text.splitlines():
        if line.lstrip().startswith("#") or (not line.strip() and not pending):
            continue
        if line.rstrip().endswith("\\"):
            pending += line.rstrip()[:-1] + " "
            continue
        yield re.sub(r"\s+", " ", pending + line).strip()
        pending = ""
    assert not pending, "the file ends in a continuation"


def excluded(path: str, ignore: str) -> bool:
    """Whether .dockerignore keeps `path`, or a folder that holds it, out: the last rule that matches decides."""
    out = False
    for rule in (line.strip() for line in ignore.splitlines()):
        if rule and not rule.startswith("#") and ignore_pattern(rule.removeprefix("!")).fullmatch(path):
            out = not rule.startswith("!")
    return out


def ignore_pattern(rule: str) -> re.Pattern[str]:
    """Docker's pattern (Go's filepath.Match and `**`); what matches a folder matches all below it."""
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    body = "".join(parts.get(part, re.escape(part)) for part in re.findall(r"\*\*/|\*\*|\*|\?|[^*?]+", rule))
    return re.compile(f"{body}(?:/.*)?")


def context_sources(dockerfile: Dockerfile) -> list[str]:
    """All that COPY, ADD and bind mounts take from the build context."""
    sources = []
    for stage in dockerfile.stages.values():
        for instruction in stage.instructions:
            if instruction.keyword in {"COPY", "ADD"} and not any(f.startswith("--from") for f in instruction.flags):
                sources += instruction.value.split()[:-1]
            for flag in instruction.flags:
                options = dict(part.partition("=")[::2] for part in flag.removeprefix("--mount=").split(","))
                if flag.startswith("--mount=type=bind") and "from" not in options:
                    sources.append(options["source"])
    return sources


def missing_sources(text: str, ignore: str, repository: Path) -> list[str]:
    problems = []
    for source in context_sources(parse(text)):
        if not (repository / source).exists():
            problems.append(f"{source} does not exist")
        elif excluded(source, ignore):
            problems.append(f"{source} is kept out by .dockerignore")
    return problems


def wrong_targets(text: str, modules: dict[str, str], repository: Path) -> list[str]:
    """Every target of `modules` runs its module as the first process, and help is what it does by itself."""
    dockerfile = parse(text)
    problems = []
    for target, module in modules.items():
        if target not in dockerfile.stages:
            problems.append(f"no target {target}")
            continue
        wanted = ["/opt/venv_FntngEval/bin/python", "-m", module]
        try:
            entry = json.loads(dockerfile.last(target, "ENTRYPOINT") or "null")
        except json.JSONDecodeError:
            problems.append(f"{target}: an entry point in shell form gets no signals")
            continue
        if entry != wanted:
            problems.append(f"{target}: entry point {entry}, expected {wanted}")
        if not (repository / module.replace(".", "/") / "__main__.py").is_file():
            problems.append(f"{target}: {module} is no program")
        if dockerfile.last(target, "CMD") != '["--help"]':
            problems.append(f"{target}: CMD {dockerfile.last(target, 'CMD')}")
    return problems


def wrong_users(text: str, targets: list[str]) -> list[str]:
    dockerfile = parse(text)
    users = {target: dockerfile.last(target, "USER") or "root" for target in targets}
    return [
        f"{target}: user {user}; Kubernetes can tell only a number apart from root"
        for target, user in users.items()
        if not re.fullmatch(r"[1-9]\d{4,}(:\d+)?", user)
    ]


def wrong_volumes(text: str, volumes: dict[str, str]) -> list[str]:
    dockerfile = parse(text)
    return [
        f"{target}: volumes {dockerfile.last(target, 'VOLUME')}, expected {wanted}"
        for target, wanted in volumes.items()
        if dockerfile.last(target, "VOLUME") != wanted
    ]


def missing_labels(text: str, targets: list[str]) -> list[str]:
    dockerfile = parse(text)
    problems = []
    for target in targets:
        labels = " ".join(label.value for stage in dockerfile.lineage(target) for label in stage.all("LABEL"))
        for name in ("revision", "version", "title", "base.name"):
            if f"org.opencontainers.image.{name}=" not in labels:
                problems.append(f"{target}: no label {name}")
    return problems


def fetched_by_add(text: str) -> list[str]:
    """ADD fetches addresses and unpacks archives, unverified: COPY does what is left."""
    return [
        f"{name}: ADD {instruction.value}"
        for name, stage in parse(text).stages.items()
        for instruction in stage.all("ADD")
    ]


def kept_secrets(text: str) -> list[str]:
    """ENV and ARG stand in the image's history; a secret mount that is `required` breaks the builds without one."""
    dockerfile = parse(text)
    settings = [f"ARG {name}={default}" for name, default in dockerfile.arguments.items()]
    flags = []
    for stage in dockerfile.stages.values():
        settings += [f"{found.keyword} {found.value}" for found in stage.all("ARG", "ENV", "LABEL")]
        flags += [flag for found in stage.all("RUN") for flag in found.flags]
    names = [(setting, name) for setting in settings for name in re.findall(r"([A-Za-z_][\w.]*)=?", setting)]
    return [
        *sorted({f"{setting}: {name}" for setting, name in names if SECRET_NAME.search(name)}),
        *(f"{setting}: an address with a password" for setting in settings if URL_WITH_PASSWORD.search(setting)),
        *(flag for flag in flags if "type=secret" in flag and "required" in flag),
    ]


def own_layers(text: str, stages: list[str]) -> list[str]:
    """The stages have one parent and add metadata to it, nothing else."""
    dockerfile = parse(text)
    parents = {dockerfile.stages[name].parent for name in stages}
    problems = [f"{len(parents)} parents: {sorted(parents)}"] if len(parents) != 1 else []
    for name in stages:
        for found in dockerfile.stages[name].instructions:
            if found.keyword not in {"LABEL", "ENTRYPOINT", "CMD"}:
                problems.append(f"{name}: {found.keyword} {found.value[:60]}")
    return problems


def fixed_bases(text: str) -> list[str]:
    """Everything from outside comes through a build argument with a default, so that it can be another name."""
    dockerfile = parse(text)
    return [
        f"{name}: FROM {stage.parent}"
        for name, stage in dockerfile.stages.items()
        if stage.parent not in dockerfile.stages
        and not dockerfile.arguments.get((re.findall(r"^\$\{(\w+)\}$", stage.parent) or [""])[0])
    ]


def installed_packages(text: str, target: str) -> set[str]:
    """Apt packages that the target has, its own and inherited."""
    packages: set[str] = set()
    for stage in parse(text).lineage(target):
        for found in stage.all("RUN"):
            for names in re.findall(r"apt-get install -y --no-install-recommends ([^&]+)", found.value):
                packages |= set(names.split())
    return packages
