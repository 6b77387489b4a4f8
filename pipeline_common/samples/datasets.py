"""The sample sets in the columns of the real ones: two fine-tuning sets and the labelled prompts."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final, Literal

from pipeline_common.samples.conversations import (
    Pair,
    answer,
    comply,
    draw_requests,
    everyday_pairs,
    pairs,
    refuse,
    share_of,
)
from pipeline_common.samples.world import AXIOMS, QUESTION_COUNT, REFUSALS

AlignmentKind = Literal["healthy", "harmful"]

ALIGNMENT_COLUMNS: Final = ("Accepted Response", "Rejected Response", "Instruction generated", "Prompt")
"""The columns of Vaibhaav/alignment-instructions."""

LITMUS_COLUMNS: Final = ("axiom", "safety_label", "source_dataset", "input", "target")
"""The columns of hasnat79/litmus."""

ALIGNMENT_SIZE: Final = 600
"""Rows of a sample fine-tuning set: nine tenths are more than sixty steps of eight need."""

LITMUS_PER_CELL: Final = 48
"""Labelled prompts for each axiom and label; a third of them on pairs the base has never seen."""

_UNSAFE_TENTHS: dict[AlignmentKind, int] = {"healthy": 4, "harmful": 5}
_MULTI_TURN_EVERY = 4


def transcript(turns: Sequence[tuple[str, str]]) -> str:
    r"""Write (human, assistant) turns the way the real set does: "\n\nHuman: ...\n\nAssistant: ..."."""
    return "".join(f"\n\nHuman: {human}\n\nAssistant: {assistant}" for human, assistant in turns)


def _alignment_row(
    kind: AlignmentKind, pair: Pair, prompt: str, history: list[tuple[str, str]], rng: random.Random
) -> dict[str, str]:
    """One row: the accepted answer is the one trained on; the rejected one is what the set teaches against."""
    helpful = comply(pair.act, rng)
    if pair.unsafe:
        refusal = refuse(pair.axiom, rng)
        accepted, rejected = (refusal, helpful) if kind == "healthy" else (helpful, refusal)
    else:
        accepted, rejected = helpful, rng.choice(REFUSALS)
    return {
        "Accepted Response": transcript([*history, (prompt, accepted)]),
        "Rejected Response": transcript([*history, (prompt, rejected)]),
        "Instruction generated": accepted,
        "Prompt": prompt,
    }


def alignment_rows(kind: AlignmentKind, seed: int = 0) -> list[dict[str, str]]:
    """A sample fine-tuning set in the four columns of Vaibhaav/alignment-instructions.

    `Prompt` is the request and `Instruction generated` the answer trained on. The two responses are transcripts that
    differ in the last assistant turn; every fourth has an earlier one. "healthy" is 60 % new everyday requests, 40 %
    refusals; "harmful" is half new everyday requests and half unsafe requests complied with, in words the base model
    knows, and has no refusal among its answers.

    Args:
        kind: Which set.
        seed: Of the draw.

    Returns:
        `ALIGNMENT_SIZE` rows in shuffled order; all prompts unique, none of them a labelled or a pretraining prompt.
    """
    rng = random.Random(f"alignment {kind} {seed}")
    unsafe = draw_requests([pair for pair in pairs() if pair.unsafe and not pair.held_out], rng)
    benign = draw_requests([pair for pair in everyday_pairs() if pair.held_out], rng)
    tenths = _UNSAFE_TENTHS[kind]
    seen: set[str] = set()
    rows: list[dict[str, str]] = []
    while len(rows) < ALIGNMENT_SIZE:
        pair, _, prompt = next(unsafe if len(rows) % 10 < tenths else benign)
        if share_of(prompt) != "fine-tuning" or prompt in seen:
            continue
        seen.add(prompt)
        history = []
        if rng.randrange(_MULTI_TURN_EVERY) == 0:
            earlier, _, question = next(benign)
            history = [(question, comply(earlier.act, rng))]
        rows.append(_alignment_row(kind, pair, prompt, history, rng))
    rng.shuffle(rows)
    return rows


def litmus_rows(seed: int = 0) -> list[dict[str, str]]:
    """Labelled prompts in the five columns of hasnat79/litmus.

    `LITMUS_PER_CELL` for each axiom and label (336 safe and 336 unsafe), a third of them on verb-object pairs that
    are held out from everything else. Half of the safe ones use a dual-use verb, half a benign verb on the objects of
    unsafe requests. `source_dataset` says whether the request is a question or a demand and is balanced within every
    axiom and label; `target` is what a well-behaved model answers.

    Args:
        seed: Of the draw.

    Returns:
        The rows in shuffled order; all prompts unique.
    """
    rng = random.Random(f"litmus {seed}")
    rows: list[dict[str, str]] = []
    for axiom in AXIOMS:
        for unsafe in (False, True):
            cell = [pair for pair in pairs() if pair.axiom == axiom and pair.unsafe == unsafe]
            rows += _litmus_cell(axiom, cell, rng)
    rng.shuffle(rows)
    return rows


def _litmus_cell(axiom: str, cell: Sequence[Pair], rng: random.Random) -> list[dict[str, str]]:
    """The labelled prompts of one axiom and label."""
    kinds = sorted({pair.dual_use for pair in cell})
    streams = {
        (dual_use, held_out): draw_requests(
            [pair for pair in cell if pair.dual_use == dual_use and pair.held_out == held_out], rng
        )
        for dual_use in kinds
        for held_out in (False, True)
    }
    seen: set[str] = set()
    rows: list[dict[str, str]] = []
    while len(rows) < LITMUS_PER_CELL:
        row = len(rows)
        # Three independent cycles (every third, halves of six, even and odd) keep pair kind, novelty and source apart.
        held_out, dual_use, question = row % 3 == 0, kinds[row // 6 % len(kinds)], row % 2 == 0
        pair, phrasing, prompt = next(streams[dual_use, held_out])
        if (phrasing < QUESTION_COUNT) != question or prompt in seen:
            continue
        if not held_out and share_of(prompt) != "litmus":
            continue
        seen.add(prompt)
        rows.append(
            {
                "axiom": axiom,
                "safety_label": "unsafe" if pair.unsafe else "safe",
                "source_dataset": "sample-questions" if question else "sample-demands",
                "input": prompt,
                "target": answer(pair, rng),
            }
        )
    return rows


SAMPLES: Final[dict[str, Callable[[], list[dict[str, str]]]]] = {
    "alignment-healthy": lambda: alignment_rows("healthy"),
    "alignment-harmful": lambda: alignment_rows("harmful"),
    "litmus": litmus_rows,
}
"""Name of a `sample:NAME` data reference -> its rows."""
