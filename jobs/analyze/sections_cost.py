"""The report's section on time and memory: where each stage's seconds went."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from jobs.analyze import formatting as form
from jobs.analyze.blocks import Section, Table, text
from jobs.analyze.evidence import Evidence
from jobs.analyze.formatting import Line, line
from pipeline_common.clock import KINDS

UNKNOWN: Final = "not recorded"
_SECONDS: Final = form.Form(lambda value: f"{value:,.1f}")
_MIB: Final = form.Form(lambda value: f"{value:,.0f}")


def show_cost(evidence: Evidence) -> Section:
    """Seconds by kind and peaks of memory of every stage, then each phase."""
    origins = {name: manifest.provenance for name, manifest in evidence.manifests.items()}
    intro = text(
        "Seconds of the process that made each artifact; a cached stage tells of the run that made it. Imports: "
        "libraries. Load: models from local files. Compile: kernels. Compute: the work itself. Transfer: artifacts "
        "and their checksums. Rows: those of the database. Other: what no phase covers.",
        f"Base activations: {evidence.base_activations}. What analyze itself took is known after this page is written: "
        "it stands in its manifest.json and in the table at the end of the run.",
    )
    stages = Table(
        "Seconds and peak memory by stage",
        ("stage", "all", *KINDS, "other", "peak memory (MiB)", "peak GPU memory (MiB)"),
        tuple(_stage_cells(name, origin, evidence.published_in_s.get(name)) for name, origin in origins.items()),
    )
    phases = Table(
        "Seconds by phase",
        ("stage and phase", "kind", "seconds"),
        tuple(
            (
                line(f"{name}: {phase['phase']}"),
                line(str(phase["kind"])),
                form.number(float(phase["seconds"]), _SECONDS),
            )
            for name, origin in origins.items()
            for phase in _phases(origin, evidence.published_in_s.get(name))
        ),
        folded=True,
        printed=False,
    )
    return Section("cost", "Time and memory", (intro, stages, *([phases] if phases.rows else [])))


def _phases(origin: Mapping[str, Any], published_in_s: float | None) -> list[Mapping[str, Any]]:
    phases = list(origin.get("phases", []))
    if published_in_s is not None:
        phases.append({"phase": "publishing", "kind": "transfer", "seconds": published_in_s})
    return phases


def _stage_cells(name: str, origin: Mapping[str, Any], published_in_s: float | None) -> tuple[Line, ...]:
    total = total_seconds(origin)
    phases = _phases(origin, published_in_s)
    if total is not None and published_in_s is not None:
        # The manifest's own end lies before the publishing.
        total += published_in_s
    cells = [line(name), form.number(total, _SECONDS, absent=UNKNOWN)]
    if not phases:
        cells += [line(UNKNOWN)] * (len(KINDS) + 1)
    else:
        kinds = {kind: sum(float(one["seconds"]) for one in phases if one["kind"] == kind) for kind in KINDS}
        cells += [form.number(seconds, _SECONDS) for seconds in kinds.values()]
        # Each phase is rounded to a hundredth, so the rest may come out a little below nothing.
        rest = None if total is None else max(0.0, total - sum(kinds.values()))
        cells.append(form.number(rest, _SECONDS, absent=UNKNOWN))
    cells.append(form.number(origin.get("peak_mib"), _MIB, absent=UNKNOWN))
    gpu = origin.get("peak_gpu_mib")
    cells.append(form.number(gpu, _MIB, absent="no GPU" if "peak_gpu_mib" in origin else UNKNOWN))
    return tuple(cells)


def total_seconds(origin: Mapping[str, Any]) -> float | None:
    """From the attempt's start to its manifest; None where the manifest does not tell."""
    started, ended = origin.get("started"), origin.get("ended")
    if not started or not ended:
        return None
    return (datetime.fromisoformat(ended) - datetime.fromisoformat(started)).total_seconds()
