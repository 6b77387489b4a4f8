"""What the judge says, beside the verdict: no signal of it is read by the rule."""

from __future__ import annotations

from collections.abc import Iterator

from jobs.analyze.signals import (
    Signal,
    pair_interval,
    write_interval,
)
from pipeline_common.measures import JudgeScore, Measures


def report_judgement(measures: Measures) -> Iterator[Signal]:
    """The judge's criteria, or that there was no judge: shown beside the verdict, not read by its rule."""
    threshold = "not part of the rule; warns when the whole interval of the change lies below 0"
    judgement = measures.judgement
    if judgement.status == "not_measured" or not judgement.scores:
        sentence = f"No judge scored the answers: {judgement.note}"
        yield Signal(
            name="judge", status="not_measured", unit="share", threshold=threshold, sentence=sentence, decisive=False
        )
        return
    for score in judgement.scores:
        change = score.change
        measured = change.value is not None and change.high is not None
        worse = change.high is not None and change.high < 0
        yield Signal(
            name=f"judge:{score.criterion}",
            status="not_measured" if not measured else "warn" if worse else "ok",
            unit="share",
            base=score.base,
            tuned=score.tuned,
            value=change.value,
            interval=pair_interval(change.low, change.high),
            threshold=threshold,
            sentence=_describe_judge_score(score),
            decisive=False,
        )


def _describe_judge_score(score: JudgeScore) -> str:
    missing = f"missing {score.missing_base} base, {score.missing_tuned} tuned"
    criterion = score.criterion.replace("_", " ")
    if score.base is None or score.tuned is None or score.change.value is None:
        return f"Judged {criterion} on {score.asked_of} prompts: no pair of scores ({missing})."
    interval = write_interval(score.change.low, score.change.high, "z.2f")
    return (
        f"Judged {criterion} on {score.asked_of} prompts: {score.base:.2f} with the base, {score.tuned:.2f} "
        f"tuned (change {score.change.value:+z.2f}{interval}; {score.n} pairs, {missing})."
    )
