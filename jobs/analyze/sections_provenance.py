"""The report's section on where it comes from: artifacts, code, machines, packages, configuration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from jobs.analyze import formatting as form
from jobs.analyze.blocks import Section, Table, bullets, facts_table, text
from jobs.analyze.evidence import Evidence
from jobs.analyze.facts import show_value
from jobs.analyze.formatting import Line, line
from jobs.analyze.sections_cost import total_seconds
from pipeline_common import provenance
from pipeline_common.config import flatten

_SECONDS: Final = form.Form(lambda value: f"{value:.1f}")
# Where it ran is no part of the result, and differs between two machines that agree.
_ELSEWHERE: Final = ("runtime.", "artifacts.", "database.")


def show_provenance(evidence: Evidence) -> Section:
    """The run, then a table for each kind of thing it was made from."""
    code = provenance.commit()
    config = flatten(evidence.config.model_dump(mode="json"))
    settings = {key: value for key, value in config.items() if not key.startswith(_ELSEWHERE)}
    facts = [
        ("run", line(evidence.run_id)),
        ("profile", line(evidence.config.profile)),
        ("base model", line(evidence.models.base.title)),
        ("adapter", line(evidence.manifests["train"].key)),
        ("base activations", line(evidence.base_activations)),
        ("sha256 of the configuration", line(_digest_settings(settings))),
        ("code of this report", line(_describe_code(code["commit"], code["dirty"]))),
        ("image of this report", line(_describe_image(provenance.image_digest()))),
    ]
    checks = [
        (line(str(check.get("name"))), line(str(check.get("status"))), line(str(check.get("detail", ""))))
        for check in evidence.environment.get("checks", [])
    ]
    shown = [(key, line(show_value(value))) for key, value in settings.items()]
    return Section(
        "provenance",
        "Provenance",
        (
            facts_table("This run", facts),
            _stage_table(evidence),
            _origin_table(evidence),
            _file_table(evidence),
            facts_table("Machines", list(_list_machines(evidence))),
            _package_table(evidence),
            Table("Checks of the machine", ("check", "status", "finding"), tuple(checks), folded=True, numeric=False),
            facts_table("Configuration", shown, note="Where it ran is left out.", folded=True, printed=False),
            text("Files of this artifact:"),
            bullets(
                ["figures/*.svg and *.png", "report.html, report.md", "summary.json", "manifest.json with every sha256"]
            ),
        ),
    )


def _stage_table(evidence: Evidence) -> Table:
    rows = []
    for name, manifest in evidence.manifests.items():
        origin = manifest.provenance
        rows.append(
            (
                line(name),
                line(manifest.key),
                line(str(origin.get("ended") or "unknown")[:19]),
                form.number(total_seconds(origin), _SECONDS, absent="unknown"),
                line(str(origin.get("attempt", "unknown"))),
                line(manifest.run_id),
            )
        )
    columns = ("stage", "artifact", "finished (UTC)", "seconds", "attempt", "made by run")
    return Table("Artifacts this report was made from", columns, tuple(rows), numeric=False)


def _origin_table(evidence: Evidence) -> Table:
    rows = [
        (
            line(name),
            line(manifest.digest()),
            line(_describe_code(manifest.provenance.get("commit"), manifest.provenance.get("dirty"))),
            line(_describe_image(manifest.provenance.get("image_digest"))),
            line(" ".join(manifest.provenance.get("argv", [])) or "unknown"),
        )
        for name, manifest in evidence.manifests.items()
    ]
    columns = ("stage", "sha256 of its manifest", "code", "image", "command")
    return Table("Digests, code and images", columns, tuple(rows), folded=True, numeric=False)


def _digest_settings(settings: Mapping[str, Any]) -> str:
    """Of the settings below as JSON with sorted keys and no spaces."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _file_table(evidence: Evidence) -> Table:
    rows = [
        (line(f"{name}/{entry.path}"), form.number(entry.size, form.COUNT), line(entry.sha256))
        for name, manifest in evidence.manifests.items()
        for entry in manifest.files
    ]
    return Table(
        "Files of these artifacts", ("file", "bytes", "sha256"), tuple(rows), folded=True, printed=False, numeric=False
    )


def _package_table(evidence: Evidence) -> Table:
    """Versions per package; stages that differ are named."""
    versions: dict[str, dict[str, list[str]]] = {}
    for stage, manifest in evidence.manifests.items():
        for package, version in manifest.provenance.get("packages", {}).items():
            versions.setdefault(package, {}).setdefault(version, []).append(stage)
    rows = []
    for package, found in sorted(versions.items()):
        shown = "; ".join(found) if len(found) == 1 else "; ".join(f"{v} ({', '.join(at)})" for v, at in found.items())
        rows.append((line(package), line(shown)))
    return Table("Package versions", ("package", "version"), tuple(rows), folded=True, printed=False, numeric=False)


def _list_machines(evidence: Evidence) -> Iterator[tuple[str, Line]]:
    """Each machine once, with the stages it ran."""
    stages: dict[str, list[str]] = {}
    for stage, manifest in evidence.manifests.items():
        stages.setdefault(_describe_machine(manifest.provenance.get("machine", {})), []).append(stage)
    for machine, names in stages.items():
        yield ", ".join(names), line(machine)


def _describe_machine(machine: Mapping[str, Any]) -> str:
    if not machine:
        return "unknown"
    cards = [" ".join(str(part) for part in gpu.values()) for gpu in machine.get("gpus") or []]
    if error := machine.get("gpus_error"):
        cards.append(str(error))
    gpus = "; ".join(cards) or "no GPU"
    return f"Python {machine.get('python')}, {machine.get('os')}, {machine.get('cpus')} CPUs, {gpus}"


def _describe_code(commit: str | None, dirty: bool | None) -> str:
    if commit is None:
        return "commit unknown"
    return f"{commit}{' with uncommitted changes' if dirty else ''}"


def _describe_image(digest: str | None) -> str:
    return digest or "no image"
