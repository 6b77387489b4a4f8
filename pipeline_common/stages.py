"""The five stages, what each depends on, and the fingerprint that names its artifact.

Fingerprint = the stage's own configuration + its inputs' fingerprints + the content of local files it reads + the code
version. Where it runs (bucket, database, device, workers, log level) stays out. Everything in it is known before
anything runs, so a run can be planned, looked up and explained without a single artifact.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from pipeline_common.errors import ConfigError
from pipeline_common.provenance import REPOSITORY as REPOSITORY  # what a stage runs is found below it
from pipeline_common.sources import source_identity

if TYPE_CHECKING:
    from pipeline_common.config import Config

FINGERPRINT_SCHEMA: Final = 1
# A folder of the store and a key of every table (128 characters there) are called so.
_RUN_ID: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=-]{0,127}")
# Who else is told about a training changes nothing of what it makes.
_TOLD_ONLY: Final = frozenset({"train.report_to"})
_PROMPT_FIELDS: Final = ("prepare.prompts", "prepare.prompts_revision", "prepare.prompt_columns.*")


@dataclass(frozen=True)
class StageInput:
    """An earlier stage this one reads, and the configuration of that stage which never reaches it."""

    stage: str
    ignoring: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stage:
    """One stage of the plan."""

    name: str
    summary: str
    fields: tuple[str, ...]
    """The configuration it reads: whole sections, or single fields of another's."""
    inputs: tuple[StageInput, ...] = ()
    sources: tuple[tuple[str, str | None], ...] = ()
    """Configuration fields that name data outside the pipeline, each with the field of its revision."""
    outputs: tuple[str, ...] = ()
    needs_gpu: bool = False


# The judge's weights are fetched with the base model's, so that later stages run without the hub.
_JUDGE_MODEL: Final = ("evaluate.judge.kind", "evaluate.judge.model", "evaluate.judge.revision")
# Disk and memory floors change what environment checks, never what the others compute.
_ENVIRONMENT: Final = StageInput("environment", ignoring=("environment.*", "evaluate.*"))

STAGES: Final[tuple[Stage, ...]] = (
    Stage(
        "environment",
        "check the machine, fetch or build the base model, prepare the database",
        fields=("model", "environment", *_JUDGE_MODEL),
        sources=(("model.base", "model.revision"),),
        outputs=("environment.json", "environment.md", "requirements.txt", "base_model.json"),
    ),
    Stage(
        "prepare",
        "turn the fine-tuning set and the labelled prompts into verified, split, formatted rows",
        fields=("model", "prepare"),
        inputs=(_ENVIRONMENT,),
        sources=(("prepare.dataset", "prepare.dataset_revision"), ("prepare.prompts", "prepare.prompts_revision")),
        outputs=("train.parquet", "validation.parquet", "prompts.parquet", "data_card.json", "data_card.md"),
    ),
    Stage(
        "train",
        "fine-tune the base model with QLoRA",
        fields=("model", "train"),
        inputs=(_ENVIRONMENT, StageInput("prepare", ignoring=_PROMPT_FIELDS)),
        outputs=("adapter/", "training_metrics.jsonl", "train.json"),
        needs_gpu=True,
    ),
    Stage(
        "evaluate",
        "measure base against tuned: geometry of the hidden states, refusals, judged answers",
        fields=("model", "evaluate"),
        inputs=(_ENVIRONMENT, StageInput("prepare"), StageInput("train")),
        sources=(("evaluate.judge.model", "evaluate.judge.revision"),),
        outputs=(
            "measures.json",
            "activations_base.safetensors",
            "activations_tuned.safetensors",
            "embeddings.safetensors",
            "prompts.jsonl",
            "responses.jsonl",
        ),
        needs_gpu=True,
    ),
    Stage(
        "analyze",
        "reach the verdict, draw the figures, write the report and the database export",
        fields=("analyze",),
        inputs=(_ENVIRONMENT, StageInput("prepare"), StageInput("train"), StageInput("evaluate")),
        outputs=("report.html", "report.md", "summary.json", "junit.xml", "figures/"),
    ),
)
STAGE_NAMES: Final = tuple(stage.name for stage in STAGES)


def find_stage(name: str) -> Stage:
    """The stage of that name.

    Raises:
        ConfigError: no such stage; the message lists them.
    """
    for stage in STAGES:
        if stage.name == name:
            return stage
    raise ConfigError(f"no stage is called {name!r}; the stages are {', '.join(STAGE_NAMES)}")


@dataclass(frozen=True)
class PlannedStage:
    """A stage with its fingerprint, and everything that went into it."""

    stage: Stage
    fingerprint: str
    payload: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Where its artifact lives in the store."""
        return f"{self.stage.name}/{self.fingerprint}"


@dataclass(frozen=True)
class Plan:
    """All five stages of one configuration."""

    run_id: str
    stages: Mapping[str, PlannedStage]


def plan_run(config: Config, run_id: str | None = None) -> Plan:
    """Fingerprint every stage of `config`.

    The default run id is made from the configuration's name and the last fingerprint: the same configuration, code and
    data are the same run, so running again continues it instead of starting another.

    Raises:
        InputError: a local file named in the configuration is missing.
        ConfigError: a name that the stores cannot keep.
    """
    planned: dict[str, PlannedStage] = {}
    for stage in STAGES:
        payload = _payload(stage, config, planned)
        planned[stage.name] = PlannedStage(stage, fingerprint_of(payload), payload)
    origin = "" if run_id else "; it begins with the configuration's name: rename the file, or set `profile: NAME`"
    named = run_id or f"{config.profile}-{planned['analyze'].fingerprint[:8]}"
    return Plan(check_run_id(named, origin), planned)


def check_run_id(run_id: str, origin: str = "") -> str:
    """The name of a run itself.

    Args:
        run_id: the name.
        origin: where it comes from, for the end of the message.

    Raises:
        ConfigError: a name that the stores cannot keep.
    """
    if not _RUN_ID.fullmatch(run_id):
        raise ConfigError(
            f"{run_id!r} cannot be the name of a run: expected at most 128 letters, digits and ._=-, the first one a "
            f"letter, a digit or _{origin}"
        )
    return run_id


def fingerprint_of(payload: Mapping[str, Any]) -> str:
    """First 16 hex digits of the sha256 of the canonical JSON of `payload`."""
    canonical = json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _payload(stage: Stage, config: Config, planned: Mapping[str, PlannedStage]) -> dict[str, Any]:
    from pipeline_common.config import flatten

    fields = {
        field: value
        for field, value in flatten(config.model_dump(mode="json")).items()
        if field not in _TOLD_ONLY and any(field == part or field.startswith(f"{part}.") for part in stage.fields)
    }
    payload: dict[str, Any] = {
        "schema": FINGERPRINT_SCHEMA,
        "stage": stage.name,
        "config": fields,
        "sources": {
            field: source_identity(str(fields[field]), fields.get(revision) if revision else None)
            for field, revision in stage.sources
            if fields.get(field) is not None
        },
        "code": code_version(stage.name),
        "inputs": {entry.stage: _without(planned[entry.stage].payload, entry.ignoring) for entry in stage.inputs},
    }
    if stage.name == "environment":
        from pipeline_common.provenance import package_versions

        payload["packages"] = package_versions()
    return payload


def _without(payload: Mapping[str, Any], ignoring: tuple[str, ...]) -> dict[str, Any]:
    """`payload` less the configuration (and sources) that the reader never sees."""
    if not ignoring:
        return dict(payload)

    def ignored(field: str) -> bool:
        return any(field == rule or (rule.endswith("*") and field.startswith(rule[:-1])) for rule in ignoring)

    return {
        **payload,
        "config": {field: value for field, value in payload["config"].items() if not ignored(field)},
        "sources": {field: value for field, value in payload["sources"].items() if not ignored(field)},
    }


@cache
def code_version(stage: str) -> str:
    """Digest of the source a stage can run: its own package and what all stages share."""
    return source_digest(f"jobs/{stage}", "pipeline_common")


def source_digest(*rooms: str) -> str:
    """First 16 hex digits of a sha256 over the source files in these folders (or single files)."""
    digest = hashlib.sha256()
    for room in rooms:
        root = REPOSITORY / room
        for path in [root] if root.is_file() else sorted(root.rglob("*")):
            if path.suffix in {".py", ".j2", ".css", ".js"}:
                digest.update(path.relative_to(REPOSITORY).as_posix().encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]
