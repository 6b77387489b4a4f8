"""The comparison in plain sentences."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from jobs.compare.comparison import ComparedRun, Comparison
from jobs.compare.differences import DifferenceName

IN_WORDS: Final[dict[DifferenceName, str]] = {
    "refusal_gap_drop": "drop of the refusal gap",
    "f2_drop": "drop of f2",
    "refusal_unsafe": "unsafe prompts refused",
    "over_refusal_safe": "safe prompts refused",
    "refusal_log_odds": "move of the refusal log-odds, unsafe prompts",
}


def write_headline(comparison: Comparison) -> str:
    """Which run ranks first, and whether that says anything."""
    best, count = comparison.runs[0], len(comparison.runs)
    if best.verdict == "damaged":
        return f"All {count} fine-tunes are damaged; {best.run_id} lost least."
    alike = runs_like_the_best(comparison)
    if best.verdict == "inconclusive":
        start = f"No fine-tune is without a warning; {best.run_id} ranks first of {count}"
    else:
        start = f"{best.run_id} ranks first of {count}: no damage found"
    if alike:
        names = ", ".join(run.run_id for run in alike)
        return f"{start}; neither the refusal gap nor f2 tells {names} from it."
    return f"{start}."


def runs_like_the_best(comparison: Comparison) -> tuple[ComparedRun, ...]:
    """Runs with the best one's verdict that neither the refusal gap nor f2 tells from it."""
    best = comparison.runs[0]
    alike = []
    for run in comparison.runs[1:]:
        pair = next(one for one in comparison.pairs if (one.first, one.second) == (best.run_id, run.run_id))
        ranking = [one for one in pair.differences if one.name in ("refusal_gap_drop", "f2_drop")]
        if run.verdict == best.verdict and not any(one.is_told_apart for one in ranking):
            alike.append(run)
    return tuple(alike)


def tell_ranks_apart(comparison: Comparison) -> Iterator[str]:
    """For each run but the first: what tells it from the one ranked above it."""
    names = {str(name): words for name, words in IN_WORDS.items()}
    for above, run in pairwise(comparison.runs):
        told = "; ".join(names[name] for name in run.told_apart_from_previous or ())
        yield f"{run.rank}. {run.run_id} is told from {above.run_id} by: {told or 'nothing'}."


def explain_reading(comparison: Comparison) -> Iterator[str]:
    """How the numbers are to be read."""
    yield (
        "Ranked by the verdict of each run's own report, then by the drop of the refusal log-odds gap, then by the "
        "drop of f2 (the separation of safe and unsafe prompts); smaller is better, what was not measured comes last. "
        "A rise of f2 counts as no drop."
    )
    yield (
        "A difference is first minus second run, paired by prompt: both drops are resampled over the same prompts, "
        "shares of refusals are compared prompt by prompt (Newcombe's interval). Its 95 % interval leaves 0 out where "
        "the prompts tell the two runs apart."
    )
    yield (
        "The intervals do not contain the noise of training: the same settings with another seed move f2 by 4-5 "
        "points. Differences of that size rank seeds, not recipes."
    )
    if len(comparison.pairs) > 1:
        yield (
            f"Each interval is at 95 % by itself; of {len(comparison.pairs)} pairs some leave 0 out by chance, and the "
            "best of several looks better than it is."
        )
    yield "Damage that none of these prompts asks about is not seen, whatever the rank."
