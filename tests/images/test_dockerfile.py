"""Dockerfile.gpu as text: what it copies, runs as, starts and shares. `make image-check` builds and runs it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline_common.stages import REPOSITORY, STAGE_NAMES
from tests.images import dockerfiles as check

DOCKERFILE = (REPOSITORY / "Dockerfile.gpu").read_text(encoding="utf-8")
IGNORE = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8")
MODULES = {**{name: f"jobs.{name}" for name in STAGE_NAMES}, "orchestrator": "jobs.pipeline"}
STAGES = list(STAGE_NAMES)
TARGETS = list(MODULES)
VOLUMES = {**dict.fromkeys(STAGES, '["/data", "/model"]'), "orchestrator": '["/data"]'}
PYTHON = '"/opt/venv_FntngEval/bin/python"'

CHECKS = {
    "sources": lambda text, ignore: check.missing_sources(text, ignore, REPOSITORY),
    "targets": lambda text, _: check.wrong_targets(text, MODULES, REPOSITORY),
    "users": lambda text, _: check.wrong_users(text, TARGETS),
    "volumes": lambda text, _: check.wrong_volumes(text, VOLUMES),
    "labels": lambda text, _: check.missing_labels(text, TARGETS),
    "add": lambda text, _: check.fetched_by_add(text),
    "secrets": lambda text, _: check.kept_secrets(text),
    "layers": lambda text, _: check.own_layers(text, STAGES),
    "bases": lambda text, _: check.fixed_bases(text),
}
# One spoiled Dockerfile per line: (check that must object, what stands there, what stands there instead).
BROKEN = [
    ("sources", "COPY jobs /app/jobs", "COPY job /app/jobs"),
    ("sources", "COPY jobs /app/jobs", "COPY tests /app/tests"),
    ("sources", "source=docker/install.sh", "source=docker/instal.sh"),
    ("sources", "requirements/runtime.in docker", "requirements/dev.in docker"),
    ("targets", "FROM gpu AS prepare", "FROM gpu AS prepared"),
    ("targets", f'ENTRYPOINT [{PYTHON}, "-m", "jobs.train"]', "ENTRYPOINT python -m jobs.train"),
    ("targets", '"jobs.analyze"]', '"jobs.analyse"]'),
    ("targets", f'{PYTHON}, "-m", "jobs.pipeline"', '"/usr/bin/python3", "-m", "jobs.pipeline"'),
    ("targets", 'CMD ["--help"]', 'CMD ["--config", "tiny"]'),
    ("users", "USER 10001:10001", "USER pipeline"),
    ("users", "USER 10001:10001", "USER 0"),
    ("users", "USER 10001:10001", "WORKDIR /app"),
    ("volumes", 'VOLUME ["/data", "/model"]', 'VOLUME ["/data", "/model", "/app"]'),
    ("labels", "org.opencontainers.image.revision", "org.opencontainers.image.commit"),
    ("add", "COPY pipeline_common", "ADD pipeline_common"),
    ("add", "COPY pipeline_common /app", "ADD https://example.org/pipeline_common.tar.gz /app"),
    ("secrets", "ARG VERSION=", "ARG HF_TOKEN="),
    ("secrets", "ARG TORCH_BUILD=cuda", "ARG PIP_INDEX_URL"),
    ("secrets", "USER=pipeline", "JUDGE_API_KEY=x"),
    ("secrets", "USER=pipeline", "MIRROR=https://me:pass@example.org/simple"),
    ("secrets", "--mount=type=secret,id=ca", "--mount=type=secret,id=ca,required=true"),
    ("layers", "FROM gpu AS train", "FROM gpu-libraries AS train"),
    ("layers", "FROM gpu AS analyze", "FROM gpu AS analyze\nRUN apt-get update"),
    ("layers", "FROM gpu AS evaluate", "FROM gpu AS evaluate\nENV SEED=1"),
    ("bases", "FROM ${BASE_IMAGE} AS gpu-libraries", "FROM nvidia/cuda:latest AS gpu-libraries"),
    ("bases", "ARG BASE_IMAGE=nvidia/cuda:13.0.2-base-ubuntu24.04", "ARG BASE_IMAGE"),
]


@pytest.mark.parametrize("name", CHECKS)
def test_the_dockerfile_passes(name):
    assert CHECKS[name](DOCKERFILE, IGNORE) == []


@pytest.mark.parametrize(("name", "there", "instead"), BROKEN, ids=[f"{row[0]}: {row[2][:40]}" for row in BROKEN])
def test_a_spoiled_dockerfile_does_not(name, there, instead):
    assert there in DOCKERFILE
    assert CHECKS[name](DOCKERFILE.replace(there, instead), IGNORE)


def test_every_check_is_seen_to_fail():
    assert {name for name, *_ in BROKEN} == set(CHECKS)


def test_the_parser_sees_the_whole_file():
    parsed = check.parse(DOCKERFILE)
    assert len(parsed.stages) == len(re.findall(r"^FROM ", DOCKERFILE, re.MULTILINE)) == 11
    # Every line that starts an instruction, less FROM and the arguments above the first one.
    started = len(re.findall(r"^[A-Z]+ ", DOCKERFILE, re.MULTILINE)) - len(parsed.stages) - len(parsed.arguments)
    assert sum(len(stage.instructions) for stage in parsed.stages.values()) == started > 50
    assert len(check.context_sources(parsed)) >= 14


def test_a_source_kept_out_by_the_ignore_file_is_found():
    assert CHECKS["sources"](DOCKERFILE, IGNORE + "pipeline_common\n") == [
        "pipeline_common is kept out by .dockerignore"
    ]


@pytest.mark.parametrize(
    ("path", "out"),
    [
        ("jobs/train/stage.py", False),
        ("pipeline_common/profiles/tiny.yaml", False),
        ("docker/install.sh", False),
        ("docker/requirements/cuda.txt", False),
        ("jobs/train/__pycache__/stage.cpython-311.pyc", True),
        ("docker/requirements/dev.txt", True),
        ("docker/docker-bake.hcl", True),
        (".git/config", True),
        (".env", True),
        ("output/centralized.db", True),
        ("venv_FntngEval/bin/python", True),
        ("tests/images/dockerfiles.py", True),
        ("README.md", True),
    ],
)
def test_only_what_is_named_reaches_the_build(path, out):
    assert check.excluded(path, IGNORE) is out


def test_everything_a_stage_reads_at_run_time_is_let_in():
    files = [path for room in ("jobs", "pipeline_common") for path in (REPOSITORY / room).rglob("*") if path.is_file()]
    code = [path.relative_to(REPOSITORY).as_posix() for path in files if "__pycache__" not in path.parts]
    assert len(code) > 150
    assert [path for path in code if check.excluded(path, IGNORE)] == []


def test_the_orchestrator_has_neither_cuda_nor_a_compiler():
    parsed = check.parse(DOCKERFILE)
    assert [stage.parent for stage in parsed.lineage("orchestrator")] == ["${ORCHESTRATOR_BASE_IMAGE}"]
    assert check.installed_packages(DOCKERFILE, "orchestrator") == {"${PYTHON}"}
    installs = [found.value for found in parsed.stages["orchestrator"].all("RUN") if "install.sh" in found.value]
    assert installs == ["sh /build/install.sh orchestrator"]


def test_the_stages_have_no_build_tool_beyond_what_triton_needs():
    assert check.installed_packages(DOCKERFILE, "train") == {"${PYTHON}", "lib${PYTHON}-dev", "gcc", "libc6-dev"}


def test_the_bake_file_builds_every_target_with_every_argument():
    bake = (REPOSITORY / "docker" / "docker-bake.hcl").read_text(encoding="utf-8")
    listed = [re.findall(r'"([a-z]+)"', names) for names in re.findall(r"(?:targets|item) += (\[.*\])", bake)]
    assert listed == [TARGETS, TARGETS]
    arguments = set(re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE))
    assert set(re.findall(r"^    ([A-Z_]+) += \1$", bake, re.MULTILINE)) == arguments
    assert set(re.findall(r'id=(\w+),src=\$\{\w+_FILE\}"', bake)) == set(re.findall(r"id=(\w+)", DOCKERFILE))
    defaults = dict(re.findall(r'variable "(\w+)" \{ default = "(.*)" \}', bake))
    parsed = check.parse(DOCKERFILE)
    assert {name: defaults[name] for name in parsed.arguments} == parsed.arguments
    # Whatever is used is declared: bake calls an unknown name an error, but only when somebody runs it.
    assert set(re.findall(r"\b([A-Z][A-Z_]+)\b", re.sub(r"#.*|\".*?\"", "", bake))) <= set(defaults)


def make_images(folder, tools, **environment):
    """Run docker/images.sh on a machine with these tools and no others; what they were called with is in `calls`."""
    passed = {name: f'exec /usr/bin/{name} "$@"' for name in ("dirname", "sed", "mkdir")}
    for name, body in {**passed, **tools}.items():
        (folder / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {folder}/calls\n{body}\n')
        (folder / name).chmod(0o755)
    return subprocess.run(
        ["/bin/sh", "docker/images.sh"],
        cwd=REPOSITORY,
        env={"PATH": str(folder), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("tools", "environment", "said"),
    [
        ({}, {}, "docker is not installed here"),
        ({"docker": "exit 1"}, {}, "no buildx plugin"),
        ({"docker": '[ "$1" = buildx ]'}, {}, "no docker daemon answers"),
        ({"docker": ""}, {"PUSH": "1"}, "PUSH=1 needs REGISTRY=your.registry/project"),
    ],
    ids=["no docker", "no buildx", "no daemon", "no registry"],
)
def test_make_images_says_what_is_missing(tmp_path, tools, environment, said):
    done = make_images(tmp_path, tools, **environment)
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr


PUSHED = {"PUSH": "1", "REGISTRY": "registry.example/me"}


@pytest.mark.parametrize(
    ("environment", "output"),
    # What is only loaded has no digest that a registry knows, and leaves nothing that `make pin` could take for one.
    [({}, "--load"), (PUSHED, "--metadata-file output/images.json --push")],
    ids=["loaded", "pushed"],
)
def test_make_images_is_one_bake_of_all_targets(tmp_path, environment, output):
    told = 'case "$*" in *bake*) echo "commit $GIT_COMMIT, dirty $GIT_DIRTY, version $VERSION";; esac'
    git = 'case "$1" in rev-parse) echo 0123abcd;; esac'
    done = make_images(tmp_path, {"docker": told, "git": git}, **environment)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"commit 0123abcd, dirty false, version \d\S+\n", done.stdout)
    bake = f"docker buildx bake -f docker/docker-bake.hcl {output}"
    assert (tmp_path / "calls").read_text().splitlines()[-1] == bake


def test_make_images_may_read_secrets_from_anywhere(tmp_path):
    """A recent bake (0.36) refuses a secret's file outside of the folder it runs in unless this says otherwise."""
    told = 'case "$*" in *bake*) echo "checks of files: $BUILDX_BAKE_ENTITLEMENTS_FS";; esac'
    done = make_images(tmp_path, {"docker": told, "git": ""}, CA_FILE="/etc/ssl/company.pem")
    assert (done.returncode, done.stdout) == (0, "checks of files: 0\n"), done.stderr


def test_a_failed_build_is_its_exit_code(tmp_path):
    tools = {"docker": 'case "$*" in *bake*) echo "no such base" >&2; exit 17;; esac', "git": ""}
    done = make_images(tmp_path, tools)
    assert (done.returncode, done.stderr) == (17, "no such base\n")


def test_hadolint_has_nothing_to_say_and_would_say_it(tmp_path):
    hadolint = Path(sys.executable).with_name("hadolint")
    config = ["--config", str(REPOSITORY / ".hadolint.yaml")]
    done = subprocess.run([hadolint, *config, REPOSITORY / "Dockerfile.gpu"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
    (spoiled := tmp_path / "Dockerfile").write_text(DOCKERFILE.replace("--no-install-recommends ", "", 1))
    done = subprocess.run([hadolint, *config, spoiled], capture_output=True, text=True)
    assert done.returncode == 1
    assert "DL3015" in done.stdout


def test_image_check_says_which_tools_are_missing(tmp_path):
    done = subprocess.run(
        [sys.executable, "docker/image_check", "--work", str(tmp_path / "work")],
        cwd=REPOSITORY,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "buildah, podman, runc missing: apt-get install buildah podman runc" in done.stdout
    assert not (tmp_path / "work").exists()


def test_the_install_step_refuses_a_name_it_does_not_know():
    done = subprocess.run(["sh", "docker/install.sh", "everything"], cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "install.sh: everything: give uv, torch, runtime or orchestrator\n")
