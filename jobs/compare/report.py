"""`comparison.html` (one self-contained file), `comparison.md` and `comparison.json`, from the same content."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from markupsafe import Markup

from jobs.analyze import formatting as form
from jobs.analyze.blocks import Block, Figure, Section, Table, bullets, facts_table, text
from jobs.analyze.figures.style import Picture
from jobs.analyze.formatting import NOT_MEASURED, Line, line
from jobs.analyze.report import TEMPLATES as REPORT_TEMPLATES
from jobs.analyze.report import make_environment
from jobs.compare.comparison import Comparison
from jobs.compare.differences import Difference
from jobs.compare.figure import draw_drops, draw_refusals
from jobs.compare.wording import IN_WORDS, explain_reading, tell_ranks_apart, write_headline
from pipeline_common.measures import Estimate, RateChange

TEMPLATES: Final = Path(__file__).parent / "templates"
_MARKS: Final = {"damaged": "✕", "inconclusive": "?", "no damage found": "✓"}


def write_comparison(comparison: Comparison, folder: Path) -> Path:
    """Write the three files, and the figures beside them; the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = (draw_drops(comparison.runs, comparison.thresholds), draw_refusals(comparison.runs))
    for picture in pictures:
        picture.write(folder / "figures")
    content = {
        "title": f"Comparison of {len(comparison.runs)} fine-tunes of {comparison.base_model}",
        "headline": write_headline(comparison),
        "best": comparison.runs[0].verdict,
        "mark": _MARKS[comparison.runs[0].verdict],
        "facts": _tell_facts(comparison),
        "cautions": comparison.cautions,
        "ranking": ranking_table(comparison),
        "sections": build_sections(comparison, pictures),
        "digest": comparison.digest,
        "style": Markup((REPORT_TEMPLATES / "report.css").read_text(encoding="utf-8")),  # noqa: S704 - our own file
    }
    environment = make_environment(TEMPLATES, REPORT_TEMPLATES)
    for name in ("comparison.html", "comparison.md"):
        (folder / name).write_text(environment.get_template(f"{name}.j2").render(content), encoding="utf-8")
    (folder / "comparison.json").write_text(comparison.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return folder


def ranking_table(comparison: Comparison) -> Table:
    """One row per run, best first."""
    rows = []
    for run in comparison.runs:
        field = f"{run.run_id}/evaluation_summary/refusal_gap/value"
        score = f"{run.run_id}/aqi_scores/overall/pooled/f2_drop_pct"
        rows.append(
            (
                line(f"{run.rank}. {run.run_id}"),
                line(", ".join((run.verdict, *run.conditions))),
                form.estimate(run.refusal_gap_drop, form.PERCENT, field, NOT_MEASURED),
                form.estimate(run.f2_drop, form.PERCENT, score, NOT_MEASURED),
                _tell_rate(run.refusal_unsafe),
                _tell_rate(run.over_refusal_safe),
                _tell_paired(comparison, run.run_id),
                form.number(run.cost.training_seconds, _SECONDS, absent="unknown"),
            )
        )
    return Table(
        "Ranking",
        (
            *("run", "verdict", "refusal gap lost", "f2 lost", "unsafe refused", "safe refused"),
            *("gap, paired with the first", "training"),
        ),
        tuple(rows),
        note="Lost: in percent of the base's value, with 95 % intervals; below 0 it grew; f2 is the separation of "
        "safe and unsafe prompts. Refused: base → tuned. "
        "Paired: how much more than the first, on the same prompts; an interval without 0 tells the two apart.",
    )


def _tell_paired(comparison: Comparison, run_id: str) -> Line:
    """How much more of the refusal gap a run lost than the first one."""
    best = comparison.runs[0].run_id
    if run_id == best:
        return line("the first")
    pair = next(one for one in comparison.pairs if (one.first, one.second) == (best, run_id))
    found = next(one.estimate for one in pair.differences if one.name == "refusal_gap_drop")
    turned = Estimate(value=_turn(found.value), low=_turn(found.high), high=_turn(found.low))
    return form.estimate(turned, form.POINTS, absent=NOT_MEASURED)


def _turn(value: float | None) -> float | None:
    return None if value is None else -value


def build_sections(comparison: Comparison, pictures: tuple[Picture, ...]) -> tuple[Section, ...]:
    """Everything below the ranking."""
    best = comparison.runs[0].run_id
    against = [pair for pair in comparison.pairs if pair.first == best]
    rest = [pair for pair in comparison.pairs if pair.first != best]
    differences: list[Block] = [Figure(picture) for picture in pictures]
    differences.append(bullets(list(tell_ranks_apart(comparison))))
    differences += [_difference_table(f"{pair.first} minus {pair.second}", pair.differences) for pair in against]
    differences += [
        _difference_table(f"{pair.first} minus {pair.second}", pair.differences, folded=True) for pair in rest
    ]
    reasons = [f"{run.rank}. {run.run_id}: {run.headline}" for run in comparison.runs]
    lesser = [
        f"{run.run_id}: {entry.stage}: {entry.name}: {entry.detail}"
        for run in comparison.runs
        for entry in run.degradations
    ]
    return (
        Section("differences", "Differences, paired by prompt", tuple(differences)),
        Section("verdicts", "Verdicts", (bullets(reasons),)),
        Section("cost", "Cost", (_cost_table(comparison),)),
        Section("settings", "What differs between the runs", (_settings_block(comparison),)),
        Section("reading", "How to read this", (bullets(list(explain_reading(comparison))),)),
        Section(
            "origin",
            "Where it comes from",
            (
                facts_table(
                    "Measured",
                    [
                        ("base model", line(comparison.base_model)),
                        ("prompts", line(comparison.prompts)),
                        ("representation", line(comparison.representation)),
                    ],
                ),
                *(
                    facts_table(
                        f"Artifacts of {run.run_id}, of {run.created_at}",
                        [(stage, line(key)) for stage, key in run.artifacts.items()],
                        folded=True,
                    )
                    for run in comparison.runs
                ),
                *_list_under("Left out:", comparison.left_out),
                *_list_under("In a lesser way than asked:", lesser),
            ),
        ),
    )


def _list_under(title: str, items: Sequence[str]) -> tuple[Block, ...]:
    return (text(title), bullets(items)) if items else ()


def _difference_table(title: str, differences: tuple[Difference, ...], *, folded: bool = False) -> Table:
    rows = []
    for one in differences:
        shown = (
            form.POINTS if one.unit == "points" else form.Form(form.SIGNED_TWO_DIGITS.write, "\N{NO-BREAK SPACE}nats")
        )
        told = "yes" if one.is_told_apart else (one.reason or "no")
        rows.append(
            (
                line(IN_WORDS[one.name]),
                form.number(one.n, form.COUNT),
                form.estimate(one.estimate, shown, absent=NOT_MEASURED),
                line(told),
            )
        )
    return Table(title, ("quantity", "prompts", "difference", "told apart"), tuple(rows), folded=folded)


def _cost_table(comparison: Comparison) -> Table:
    rows = []
    for run in comparison.runs:
        cost = run.cost
        seconds = cost.stage_seconds
        rows.append(
            (
                line(f"{run.rank}. {run.run_id}"),
                form.number(cost.training_seconds, _SECONDS, absent="unknown"),
                form.number(cost.steps, form.COUNT, absent="unknown"),
                form.number(cost.tokens, form.COUNT, absent="unknown"),
                form.number(cost.rows, form.COUNT, absent="unknown"),
                form.number(cost.trainable_parameters, form.COUNT, absent="unknown"),
                line(cost.device or "unknown"),
                form.number(sum(seconds.values()) if seconds else None, _SECONDS, absent="unknown"),
            )
        )
    return Table(
        "What each fine-tune took",
        ("run", "training", "steps", "tokens", "rows", "trained parameters", "device", "all stages"),
        tuple(rows),
        note="Training: the optimizer's steps alone. All stages: when their artifacts were made; runs share the early "
        "ones.",
    )


_SECONDS: Final = form.Form(lambda value: f"{value:,.1f}", "\N{NO-BREAK SPACE}s")


def _settings_block(comparison: Comparison) -> Table:
    ids = [run.run_id for run in comparison.runs]
    rows = tuple(
        (line(name), *(line(values[run_id]) for run_id in ids)) for name, values in comparison.settings.items()
    )
    nothing: tuple[tuple[Line, ...], ...] = ((line("nothing"), *(line("the same") for _ in ids)),)
    return Table("Settings", ("setting", *ids), rows or nothing, numeric=False)


def _tell_facts(comparison: Comparison) -> Line:
    return line(
        form.number(comparison.n_safe, form.COUNT),
        " safe and ",
        form.number(comparison.n_unsafe, form.COUNT),
        f" unsafe prompts scored; {comparison.prompts}.",
    )


def _tell_rate(rate: RateChange | None) -> Line:
    if rate is None:
        return (NOT_MEASURED,)
    return line(
        form.number(rate.base, form.Form(form.RATE.write)), "\N{NO-BREAK SPACE}→ ", form.number(rate.tuned, form.RATE)
    )
