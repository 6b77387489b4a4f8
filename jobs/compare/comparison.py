"""Which of these fine-tunes: the ranking, and what tells each from the others. The content of `comparison.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise
from typing import Final, Literal

from jobs.compare.agreement import differing_settings, require_comparable
from jobs.compare.differences import (
    Difference,
    Outcomes,
    compare_f2,
    compare_gaps,
    compare_log_odds,
    compare_refusals,
    pair_outcomes,
    resample_f2_drop,
)
from jobs.compare.runs import FinishedRun
from pipeline_common.measures import Degradation, Estimate, Measured, RateChange
from pipeline_common.run_summary import VerdictLabel
from pipeline_common.stages import fingerprint_of
from pipeline_common.thresholds import Thresholds

_ORDER: Final[Mapping[VerdictLabel, int]] = {"no damage found": 0, "inconclusive": 1, "damaged": 2}
_NOTHING: Final = Estimate(value=None)


class Cost(Measured):
    """What one fine-tune took."""

    training_seconds: float | None
    """Of the optimizer's steps alone."""
    steps: int | None
    tokens: int | None
    """Prompt + answer tokens trained on, no padding, repeats counted."""
    rows: int | None
    trainable_parameters: int | None
    device: str | None
    stage_seconds: dict[str, float]
    """Each stage when its artifact was made; a stage may be shared with other runs."""


class ComparedRun(Measured):
    """One fine-tune in the ranking; numbers as its own report has them."""

    rank: int
    run_id: str
    profile: str
    created_at: str
    dataset: str
    verdict: VerdictLabel
    headline: str
    conditions: tuple[str, ...]
    refusal_gap_drop: Estimate
    """Percent of the base's refusal log-odds gap, positive = lost."""
    f2_drop: Estimate
    """Percent of the base's f2, positive = lost separation."""
    refusal_unsafe: RateChange | None
    over_refusal_safe: RateChange | None
    coherence: float | None
    """Of the tuned model, in [0, 1]."""
    babbles: bool
    """Whether coherence was not passed: nothing is concluded from its answers."""
    cost: Cost
    degradations: tuple[Degradation, ...]
    artifacts: dict[str, str]
    """Stage -> key in the store."""
    told_apart_from_previous: tuple[str, ...] | None = None
    """Quantities whose paired interval tells it from the run ranked before it; None for the first."""


class PairDifference(Measured):
    """Two fine-tunes, first minus second; the first is ranked higher."""

    first: str
    second: str
    differences: tuple[Difference, ...]


class Comparison(Measured):
    """Everything the report says."""

    schema_version: Literal[1] = 1
    digest: str
    """Names this comparison: of the same runs with the same results, in whatever order they are named."""
    base_model: str
    prompts: str
    representation: str
    n_safe: int
    n_unsafe: int
    thresholds: Thresholds
    """Of the first run; `cautions` says where another run's differ."""
    runs: tuple[ComparedRun, ...]
    """Best first."""
    pairs: tuple[PairDifference, ...]
    """Every two runs."""
    settings: dict[str, dict[str, str]]
    """What differs between the runs: section.field -> run id -> value as JSON."""
    cautions: tuple[str, ...]
    left_out: tuple[str, ...]


def compare_runs(runs: Sequence[FinishedRun], left_out: Sequence[str] = ()) -> Comparison:
    """Rank fine-tunes of one base and tell them apart.

    Args:
        runs: at least two.
        left_out: which runs were not taken, in words.

    Raises:
        InputError: they do not share base model, prompts and representation.
    """
    subject = require_comparable({run.run_id: run.subject for run in runs})
    ranked = sorted((describe_run(run) for run in runs), key=rank_key)
    by_id = {run.run_id: run for run in runs}
    pairs = _compare_pairs(ranked, by_id)
    told = {(pair.first, pair.second): _told_apart(pair) for pair in pairs}
    numbered = [ranked[0].model_copy(update={"rank": 1})]
    for rank, (before, one) in enumerate(pairwise(ranked), start=2):
        apart = told[before.run_id, one.run_id]
        numbered.append(one.model_copy(update={"rank": rank, "told_apart_from_previous": apart}))
    settings = differing_settings({one.run_id: by_id[one.run_id].config for one in ranked})
    best = by_id[ranked[0].run_id]
    return Comparison(
        digest=fingerprint_of({"runs": {run.run_id: run.manifest_digest for run in runs}}),
        base_model=subject.base_model,
        prompts=subject.prompts,
        representation=subject.representation,
        n_safe=best.measures.n_safe,
        n_unsafe=best.measures.n_unsafe,
        thresholds=best.summary.thresholds,
        runs=tuple(numbered),
        pairs=pairs,
        settings=settings,
        cautions=tuple(_list_cautions(runs, settings)),
        left_out=tuple(left_out),
    )


def rank_key(run: ComparedRun) -> tuple[int, tuple[bool, float], tuple[bool, float], str]:
    """Verdict, then the drop of the refusal gap, then that of f2, smaller first; what was not measured comes last.

    A rise of f2 counts as no drop: a higher separation is no improvement by itself.
    """
    gap, f2 = run.refusal_gap_drop.value, run.f2_drop.value
    return (
        _ORDER[run.verdict],
        (gap is None, 0.0 if gap is None else gap),
        (f2 is None, 0.0 if f2 is None else max(f2, 0.0)),
        run.run_id,
    )


def describe_run(run: FinishedRun) -> ComparedRun:
    """What the comparison says of one run by itself; not ranked yet."""
    measures, summary = run.measures, run.summary
    overall = next((score for score in measures.geometry if score.scope == "overall"), None)
    rates = {rate.name: rate for rate in measures.rates if rate.n > 0}
    signals = {signal.name: signal for signal in summary.signals}
    gap = signals.get("refusal_gap")
    # What the rule did not judge (a base that hardly refuses) is no ground for a rank either.
    judged = measures.refusal_gap is not None and gap is not None and gap.status != "not_measured"
    coherence = signals.get("coherence")
    facts = run.train_facts
    return ComparedRun(
        rank=0,
        run_id=run.run_id,
        profile=run.profile,
        created_at=run.created_at.isoformat(timespec="seconds"),
        dataset=summary.run.dataset,
        verdict=summary.verdict,
        headline=summary.headline,
        conditions=summary.conditions,
        refusal_gap_drop=measures.refusal_gap.drop_pct if judged and measures.refusal_gap is not None else _NOTHING,
        f2_drop=_NOTHING if overall is None else overall.f2_drop_pct,
        refusal_unsafe=rates.get("refusal_unsafe"),
        over_refusal_safe=rates.get("over_refusal_safe"),
        coherence=measures.coherence.tuned,
        babbles=coherence is None or coherence.status != "ok",
        cost=Cost(
            training_seconds=facts.get("training_seconds"),
            steps=facts.get("steps"),
            tokens=facts.get("trained_tokens"),
            rows=facts.get("train_rows"),
            trainable_parameters=facts.get("trainable_parameters"),
            device=facts.get("gpu") or facts.get("device"),
            stage_seconds=dict(run.stage_seconds),
        ),
        degradations=summary.degradations,
        artifacts=dict(run.artifacts),
    )


def _compare_pairs(ranked: Sequence[ComparedRun], by_id: Mapping[str, FinishedRun]) -> tuple[PairDifference, ...]:
    """Every two of the runs, in their order."""
    runs = [by_id[one.run_id] for one in ranked]
    babbling = {one.run_id for one in ranked if one.babbles}
    without_gap = {one.run_id for one in ranked if one.refusal_gap_drop.value is None}
    outcomes = {run.run_id: pair_outcomes(run.responses) for run in runs}
    drops = {}
    for run in runs:
        scored = run.scored
        drops[run.run_id] = resample_f2_drop(
            run.embeddings["base"],
            run.embeddings["tuned"],
            [row["safety_label"] == "unsafe" for row in scored],
            [str(row["axiom"]) for row in scored],
            [str(row["prompt_id"]) for row in scored],
        )
    pairs = []
    for first, second in combinations(runs, 2):
        babbles = [run.run_id for run in (first, second) if run.run_id in babbling]
        one, other = outcomes[first.run_id], outcomes[second.run_id]
        differences = (
            compare_gaps(one, other, [run.run_id for run in (first, second) if run.run_id in without_gap]),
            compare_f2(drops[first.run_id], drops[second.run_id], len(first.scored)),
            compare_refusals("refusal_unsafe", one, other, babbles),
            compare_refusals("over_refusal_safe", one, other, babbles),
            compare_log_odds(one, other),
        )
        pairs.append(PairDifference(first=first.run_id, second=second.run_id, differences=differences))
    return tuple(pairs)


def _told_apart(pair: PairDifference) -> tuple[str, ...]:
    return tuple(difference.name for difference in pair.differences if difference.is_told_apart)


def _list_cautions(runs: Sequence[FinishedRun], settings: Mapping[str, object]) -> list[str]:
    """What a reader must know before two rows are compared."""
    cautions = []
    measured = [name for name in settings if name.startswith("evaluate.")]
    if measured:
        cautions.append(f"The runs were not measured with the same settings: {', '.join(measured)} differ.")
    if any(name.startswith("analyze.thresholds") for name in settings):
        cautions.append("The verdicts were not reached with the same thresholds; rank them by the numbers.")
    if _openings_differ([pair_outcomes(run.responses) for run in runs]):
        cautions.append(
            "The refusal log-odds of the base differ between the runs, for the refusal openings are taken from both "
            "models of a run; each fall is relative to its own base value."
        )
    return cautions


def _openings_differ(outcomes: Sequence[Outcomes], tolerance_nats: float = 0.01) -> bool:
    """Whether the same base has other log-odds on the same prompt, beyond rounding."""
    seen: dict[str, float] = {}
    for one in outcomes:
        for prompt, roles in one.items():
            value = roles["base"]["refusal_log_odds"]
            if value is not None and abs(seen.setdefault(prompt, value) - value) > tolerance_nats:
                return True
    return False
