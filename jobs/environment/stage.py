"""Check the machine, fetch or build the models, prepare the database: whatever is wrong is told at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from jobs.environment import checks as machine
from jobs.environment.checks import Check
from jobs.environment.hub import check_hub_token
from jobs.environment.models import check_references, resolve_models
from pipeline_common import provenance
from pipeline_common.context import Context, Outputs
from pipeline_common.logs import get_logger
from pipeline_common.model_location import MODELS_FILE, ResolvedModels, model_folder

_MARKS: Final = {"ok": "ok", "degraded": "DEGRADED", "failed": "FAILED"}
_log = get_logger(__name__)


def run(context: Context) -> Outputs:
    """Check, resolve, report.

    Raises:
        PipelineError: one or more checks failed; the message names each with its fix.
    """
    config = context.config
    check_references(config)
    findings = [
        *machine.check_machine(config, context.work_dir),
        machine.check_packages(),
        machine.check_store(context.store),
        machine.check_database(context.database),
        check_hub_token(config),
    ]
    # Torch takes seconds to import: only once the cheap checks have spoken, but before anything is raised.
    with context.clock.phase("imports"):
        from jobs.environment import accelerator

    with context.clock.phase("checking the accelerator"):
        findings += [accelerator.check_gpu(config), accelerator.check_four_bit(config)]
    for check in findings:
        _log.debug("%s: %s: %s", check.name, check.status, check.detail)
    machine.raise_failures(findings)
    with context.clock.phase("fetching or building the models"):
        models = resolve_models(context)
    if models.base.kind != "embedded":
        from pipeline_common.gpu.trunk import require_trunk

        with context.clock.phase("reading the architecture of the base model"):
            require_trunk(model_folder(models.base, context.store))
    _write_report(context.files, config.profile, findings, models)
    degradations = tuple(context.degrade(check.name, check.detail) for check in findings if check.status == "degraded")
    return Outputs(
        rows={"experiments": [{"base_commit": models.base.commit, "machine": provenance.describe_machine()}]},
        summary={
            "base_model": models.base.title,
            "judge": models.judge.title if models.judge else None,
            "checks": len(findings),
            "degraded": [check.name for check in findings if check.status == "degraded"],
        },
        degradations=degradations,
    )


def _write_report(files: Path, profile: str, findings: list[Check], models: ResolvedModels) -> None:
    drift: dict[str, Any] = next(dict(check.facts["drift"]) for check in findings if check.name == "packages")
    report = {
        "profile": profile,
        "machine": provenance.describe_machine(),
        "checks": [check.to_json() for check in findings],
        "models": models.model_dump(mode="json"),
    }
    (files / "environment.json").write_text(json.dumps(report, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (files / MODELS_FILE).write_text(models.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (files / "requirements.txt").write_text(machine.installed_requirements(drift), encoding="utf-8")
    (files / "environment.md").write_text(_markdown(report, findings, models), encoding="utf-8")


def _markdown(report: dict[str, Any], findings: list[Check], models: ResolvedModels) -> str:
    host = report["machine"]
    lines = [
        f"# Environment of profile {report['profile']}",
        "",
        f"Python {host['python']} on {host['os']}, {host['cpus']} CPUs, "
        f"{_count_gpus(host)}. Base model {models.base.title}, "
        f"judge {models.judge.title if models.judge else 'none'}.",
        "",
        "| check | status | finding | fix |",
        "| --- | --- | --- | --- |",
        *(
            f"| {check.name} | {_MARKS[check.status]} | {_cell(check.detail)} | {_cell(check.fix)} |"
            for check in findings
        ),
        "",
    ]
    return "\n".join(lines)


def _count_gpus(host: dict[str, Any]) -> str:
    counted = f"{len(host['gpus'])} GPU(s)"
    return counted if host["gpus_error"] is None else f"{counted} ({host['gpus_error']})"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
