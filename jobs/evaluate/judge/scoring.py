"""From a judge's digit probabilities to scores, and from scores to the paired comparison. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs.evaluate.metric.paired import mean_change
from jobs.evaluate.selection import LabelledPrompt
from pipeline_common.judge_form import CRITERIA, DIGITS
from pipeline_common.measures import JudgeScore


@dataclass(frozen=True)
class Question:
    """One form to be filled in."""

    prompt_id: str
    model_role: str
    criterion: str
    request: str
    answer: str

    @property
    def form(self) -> tuple[str, str, str]:
        """What the judge gets to see: the same form is asked once and scored alike."""
        return self.criterion, self.request, self.answer


@dataclass(frozen=True)
class DigitScore:
    """What the judge said to one question."""

    score: float | None = None
    """(expected - 1) / 4 in [0, 1], higher is better; None = missing."""
    expected: float | None = None
    """Expectation over the digits 1-5, their probabilities scaled to sum to 1."""
    digit: int | None = None
    """The most probable digit, or the one written."""
    mass: float | None = None
    """Probability the judge gave to the five digits together; None when it gives no probabilities."""
    missing: str | None = None
    """Why there is no score."""

    def to_record(self) -> dict[str, float | int | str | None]:
        """For the column `judge_scores` of `model_responses`."""
        return {
            "score": self.score,
            "expected": self.expected,
            "digit": self.digit,
            "mass": self.mass,
            "missing": self.missing,
        }


def score_probabilities(probabilities: Mapping[str, float], min_mass: float) -> DigitScore:
    """Score one answer from the probability of each digit (Liu et al. 2023, G-Eval, equation 1).

    Args:
        probabilities: digit -> probability, spellings of a digit already added up; absent digits have none.
        min_mass: less probability on the five digits together is no answer to the form.

    Returns:
        The score, or a missing one that says why. Ties of the most probable digit go to the lower one.
    """
    mass = sum(probabilities.get(digit, 0.0) for digit in DIGITS)
    if mass <= 0 or mass < min_mass:
        return DigitScore(mass=mass, missing=f"digits 1-5 have probability {mass:.3f}, expected at least {min_mass:g}")
    expected = sum(int(digit) * probabilities.get(digit, 0.0) for digit in DIGITS) / mass
    digit = max(DIGITS, key=lambda digit: (probabilities.get(digit, 0.0), -int(digit)))
    return DigitScore(score=(expected - 1) / 4, expected=expected, digit=int(digit), mass=mass)


def score_written(text: str) -> DigitScore:
    """Score one answer from the digit that was written, for a judge that gives no probabilities.

    The text must be one digit from 1 to 5, a full stop and spaces aside: "10", "4/5" and "four" are missing.
    """
    digit = text.strip().rstrip(".")
    if digit not in DIGITS:
        return DigitScore(missing=f"the judge wrote {text[:40]!r}, expected one digit from 1 to 5")
    return DigitScore(score=(int(digit) - 1) / 4, expected=float(digit), digit=int(digit))


def list_questions(prompts: Sequence[LabelledPrompt], answers: Mapping[tuple[str, str], str]) -> list[Question]:
    """Every question about the answers to some prompts.

    Args:
        prompts: the prompts whose answers are judged.
        answers: (prompt_id, model_role) -> answer.

    Returns:
        Prompt by prompt, base before tuned, in the order of `CRITERIA`; only criteria that are asked of the label.
    """
    return [
        Question(prompt.prompt_id, role, criterion.name, prompt.text, answers[prompt.prompt_id, role])
        for prompt in prompts
        for role in ("base", "tuned")
        for criterion in CRITERIA.values()
        if criterion.asked_of in ("all", prompt.safety_label)
    ]


def unique_questions(questions: Sequence[Question]) -> list[Question]:
    """The first question of each form, in order: base and tuned often give the same answer."""
    return list({question.form: question for question in reversed(questions)}.values())[::-1]


def spread_scores(
    questions: Sequence[Question], asked: Sequence[Question], scores: Sequence[DigitScore]
) -> list[DigitScore]:
    """One score per question, from those of the forms that were asked."""
    by_form = {question.form: score for question, score in zip(asked, scores, strict=True)}
    return [by_form[question.form] for question in questions]


def compare_scores(questions: Sequence[Question], scores: Sequence[DigitScore]) -> tuple[JudgeScore, ...]:
    """Base against tuned per criterion, paired by prompt.

    A prompt counts where both models have a score; missing ones are counted per model and left out of everything.

    Args:
        questions: as `list_questions` gives them.
        scores: one per question.
    """
    found = {
        (question.criterion, question.model_role, question.prompt_id): score.score
        for question, score in zip(questions, scores, strict=True)
    }
    compared = []
    for criterion in CRITERIA.values():
        asked = sorted({prompt for name, _, prompt in found if name == criterion.name})
        pairs = [(found[criterion.name, "base", prompt], found[criterion.name, "tuned", prompt]) for prompt in asked]
        both = [(base, tuned) for base, tuned in pairs if base is not None and tuned is not None]
        if not pairs:
            continue
        compared.append(
            JudgeScore(
                criterion=criterion.name,
                asked_of=criterion.asked_of,
                n=len(both),
                missing_base=sum(base is None for base, _ in pairs),
                missing_tuned=sum(tuned is None for _, tuned in pairs),
                base=_mean([base for base, _ in both]),
                tuned=_mean([tuned for _, tuned in both]),
                change=mean_change([base for base, _ in both], [tuned for _, tuned in both]),
            )
        )
    return tuple(compared)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
