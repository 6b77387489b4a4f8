"""Reach the verdict, draw the figures, write the report: `python -m jobs.analyze --config tiny`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from pipeline_common.context import Context, Outputs
from pipeline_common.logs import get_logger

if TYPE_CHECKING:
    from jobs.analyze.evidence import Evidence
    from jobs.analyze.figures.style import Picture

DAMAGED_EXIT_CODE: Final = 4
"""What the process exits with when the verdict is damaged and `analyze.gate` is on."""
_log = get_logger(__name__)


def run(context: Context) -> Outputs:
    """Write `figures/`, `report.html`, `report.md`, `summary.json` and `junit.xml`.

    Returns:
        The rows of `evaluation_summary` and the verdict; with `analyze.gate` and a damaged verdict also the exit code.

    Raises:
        InputError: an input is not what its stage should have written.
    """
    # Matplotlib, scikit-learn and Jinja take a second to import: only when the stage really runs.
    with context.clock.phase("imports"):
        from jobs.analyze.evidence import read_evidence
        from jobs.analyze.junit import build_junit
        from jobs.analyze.report import write_reports
        from jobs.analyze.summary import build_rows, build_summary

    evidence = read_evidence(context)
    verdict = evidence.verdict
    with context.clock.phase("figures"):
        pictures = draw_figures(evidence)
        for picture in pictures.values():
            picture.write(context.files / "figures")
    with context.clock.phase("reports"):
        sizes = write_reports(evidence, pictures, context.files)
    found = build_summary(evidence)
    content = json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False)
    (context.files / "summary.json").write_text(f"{content}\n", encoding="utf-8")
    (context.files / "junit.xml").write_bytes(build_junit(found))
    _log.info("verdict: %s", verdict.headline)
    summary: dict[str, Any] = {
        "verdict": verdict.label,
        "headline": verdict.headline,
        "conditions": list(verdict.conditions),
        "degradations": len(evidence.degradations),
        "report_bytes": sizes["report.html"],
    }
    if context.config.analyze.gate and verdict.label == "damaged":
        summary["exit_code"] = DAMAGED_EXIT_CODE
    return Outputs(rows={"evaluation_summary": build_rows(evidence)}, summary=summary)


def draw_figures(evidence: Evidence) -> dict[str, Picture]:
    """All figures by name."""
    from jobs.analyze.figures.aqi import draw_aqi
    from jobs.analyze.figures.behaviour import draw_behaviour
    from jobs.analyze.figures.layers import draw_layers
    from jobs.analyze.figures.paired import draw_paired
    from jobs.analyze.figures.projection import draw_projection
    from jobs.analyze.figures.training import draw_training

    measures = evidence.measures
    labels = [str(row["safety_label"]) for row in evidence.prompts]
    pictures = (
        draw_aqi(measures),
        draw_layers(measures),
        draw_projection(evidence.embeddings["base"], evidence.embeddings["tuned"], labels),
        draw_paired(evidence.points),
        draw_behaviour(measures),
        draw_training(evidence.training),
    )
    return {picture.name: picture for picture in pictures}
