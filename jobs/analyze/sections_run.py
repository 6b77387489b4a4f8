"""The report's sections on the run: training, data, degradations, provenance."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from jobs.analyze import formatting as form
from jobs.analyze.blocks import Figure, Section, Table, bullets, facts_table, text
from jobs.analyze.evidence import Evidence
from jobs.analyze.figures.style import Picture
from jobs.analyze.formatting import Line, line
from jobs.analyze.sections_cost import show_cost, total_seconds
from pipeline_common import provenance
from pipeline_common.config import flatten

_MAX_FACTS: Final = 120
_MAX_LIST: Final = 12
_FIRST_FACTS: Final = (
    *("train_rows", "validation_rows", "train_tokens", "steps", "effective_epochs", "first_train_loss"),
    *("final_train_loss", "validation_loss", "tokens_per_second", "training_seconds", "quantization", "compute_dtype"),
    *("device", "gpu", "trainable_parameters", "all_parameters", "lora", "seed"),
)
_SECONDS: Final = form.Form(lambda value: f"{value:.1f}")
# Where it ran is no part of the result, and differs between two machines that agree.
_ELSEWHERE: Final = ("runtime.", "artifacts.", "database.")


def build_run_sections(evidence: Evidence, pictures: Mapping[str, Picture]) -> tuple[Section, ...]:
    """The sections after the answers."""
    return (
        _show_training(evidence, pictures),
        _show_data(evidence),
        _show_degradations(evidence),
        show_cost(evidence),
        _show_provenance(evidence),
    )


def _show_training(evidence: Evidence, pictures: Mapping[str, Picture]) -> Section:
    told = evidence.train_facts
    first = {name: told[name] for name in _FIRST_FACTS if name in told}
    rest = {name: value for name, value in told.items() if name not in first}
    return Section(
        "training",
        "Training",
        (
            Figure(pictures["training_loss"]),
            facts_table("The training in short", list(_list_facts(first, "train.json"))),
            *_looked_up("Everything else about the training", rest, "train.json"),
        ),
    )


def _looked_up(title: str, facts: Mapping[str, Any], source: str) -> tuple[Table, ...]:
    """A folded table of facts, if there are any."""
    rows = list(_list_facts(facts, source))
    return (facts_table(title, rows, folded=True, printed=False),) if rows else ()


def _show_data(evidence: Evidence) -> Section:
    """Plain facts first, then a table for everything that is counted in the same way several times."""
    plain, grids = split_grids(evidence.data_card)
    settings = {"settings": plain.pop("settings")} if "settings" in plain else {}
    facts = facts_table(
        "Data card", list(_list_facts(plain, "data_card.json")), note="In full: data_card.md of prepare."
    )
    tables = (_grid_table(path, grid) for path, grid in grids.items())
    return Section(
        "data", "Data", (facts, *tables, *_looked_up("Settings of the preparation", settings, "data_card.json"))
    )


def split_grids(facts: Mapping[str, Any], path: str = "") -> tuple[dict[str, Any], dict[str, Mapping[str, Any]]]:
    """What of a JSON document is no grid, and the grids by their paths.

    A grid is a mapping of two or more mappings that all have the same keys and plain values.
    """
    plain: dict[str, Any] = {}
    grids: dict[str, Mapping[str, Any]] = {}
    for key, value in facts.items():
        name = f"{path}{key}"
        if isinstance(value, Mapping) and _is_grid(value):
            grids[name] = value
        elif isinstance(value, Mapping):
            inner, found = split_grids(value, f"{name}.")
            grids |= found
            if inner or not value:
                plain[key] = inner
        else:
            plain[key] = value
    return plain, grids


def _is_grid(value: Mapping[str, Any]) -> bool:
    rows = list(value.values())
    if len(rows) < 2 or not all(isinstance(row, Mapping) and row for row in rows):
        return False
    same = all(row.keys() == rows[0].keys() for row in rows)
    return same and not any(isinstance(cell, Mapping | list) for row in rows for cell in row.values())


def _grid_table(path: str, grid: Mapping[str, Any]) -> Table:
    names = sorted(grid, key=_natural)[:_MAX_FACTS]
    columns = list(grid[names[0]])
    rows = [
        (line(name), *(_show_fact(grid[name][column], f"data_card.json/{path}.{name}.{column}") for column in columns))
        for name in names
    ]
    left_out = f"{len(grid) - len(names)} more in data_card.json." if len(grid) > len(names) else ""
    title = path.replace(".", ": ").replace("_", " ")
    return Table(f"{title[:1].upper()}{title[1:]}", ("name", *columns), tuple(rows), note=left_out)


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """S2 before S10."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", name)]


def _show_degradations(evidence: Evidence) -> Section:
    found = evidence.degradations
    title = "Degradations"
    if not found:
        return Section("degradations", title, (text("None: everything ran as asked."),))
    rows = tuple((line(entry.stage), line(entry.name), line(entry.detail)) for entry in found)
    table = Table("What ran in a lesser way than asked", ("stage", "what", "detail"), rows, numeric=False)
    return Section("degradations", title, (table,))


def _show_provenance(evidence: Evidence) -> Section:
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
    shown = [(key, line(_show_value(value))) for key, value in settings.items()]
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


def _list_facts(facts: Mapping[str, Any], source: str) -> Iterator[tuple[str, Line]]:
    """A JSON document as name and value; what is too long for a page is counted, never dropped silently."""
    found = list(_walk(facts, "", source))
    yield from found[:_MAX_FACTS]
    if len(found) > _MAX_FACTS:
        yield f"{len(found) - _MAX_FACTS} more", line(f"in {source}")


def _walk(facts: Mapping[str, Any], path: str, source: str) -> Iterator[tuple[str, Line]]:
    """One row per value; a short mapping without mappings inside is one row."""
    for key, value in facts.items():
        name = f"{path}{key}"
        if not isinstance(value, Mapping):
            yield name, _show_fact(value, f"{source}/{name}")
        elif value and (len(value) > _MAX_LIST or any(isinstance(entry, Mapping) for entry in value.values())):
            yield from _walk(value, f"{name}.", source)
        else:
            pieces: list[Line] = []
            for part, entry in value.items():
                separator = ", " if pieces else ""
                pieces.append(line(separator, f"{part} ", _show_fact(entry, f"{source}/{name}.{part}")))
            yield name, line(*pieces) or line("none")


def _show_fact(value: Any, field: str) -> Line:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return line(_show_value(value))
    shown = form.COUNT.write(value) if isinstance(value, int) and abs(value) >= 10_000 else _show_value(value)
    return (form.Number(shown, value, field),)


def _show_value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        if not all(isinstance(entry, str | int | float) for entry in value) or len(value) > _MAX_LIST:
            return f"{len(value)} entries"
        return ", ".join(_show_value(entry) for entry in value) or "none"
    return str(value) if value != {} else "none"
