"""From a judge's digit probabilities to scores, and from scores to the paired comparison. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs.evaluate.metric.paired import mean_change
from jobs.evaluate.selection import LabelledPrompt
from jobs.evaluate.sharing import ROLES
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
    """Probability the judge gave to the five digits together; of samples, the share that is a digit."""
    missing: str | None = None
    """Why there is no score."""
    unparsed: bool = False
    """Missing because the judge answered outside the form."""
    samples: int | None = None
    """How many answers were sampled, where the judge gives no probabilities."""

    def to_record(self) -> dict[str, float | int | str | None]:
        """For the column `judge_scores` of `model_responses`."""
        return {
            "score": self.score,
            "expected": self.expected,
            "digit": self.digit,
            "mass": self.mass,
            "missing": self.missing,
            "samples": self.samples,
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
        missing = f"digits 1-5 have probability {mass:.3f}, expected at least {min_mass:g}"
        return DigitScore(mass=mass, missing=missing, unparsed=True)
    expected = sum(int(digit) * probabilities.get(digit, 0.0) for digit in DIGITS) / mass
    digit = max(DIGITS, key=lambda digit: (probabilities.get(digit, 0.0), -int(digit)))
    return DigitScore(score=(expected - 1) / 4, expected=expected, digit=int(digit), mass=mass)


def read_digit(text: str) -> int | None:
    """The digit that is all of a text, a full stop and spaces aside: "10/10", "4/5", "4.5" and "four" are None."""
    digit = text.strip().removesuffix(".")
    return int(digit) if digit in DIGITS else None


def score_samples(texts: Sequence[str], min_share: float) -> DigitScore:
    """Score one answer from replies sampled at temperature 1, for a judge that gives no probabilities.

    The share of replies that are a digit estimates the digits' probability and the mean of those digits the
    expectation, so what `score_probabilities` asks of the one is asked of the other here.

    Args:
        texts: the replies, at least one.
        min_share: a smaller share of replies within the form is no answer to it.
    """
    digits = [digit for digit in map(read_digit, texts) if digit is not None]
    share = len(digits) / len(texts)
    if not digits or share < min_share:
        wrong = next((text for text in texts if read_digit(text) is None), "")
        missing = (
            f"{len(digits)} of {len(texts)} sampled replies are a digit from 1 to 5, expected a share of at least "
            f"{min_share:g}; one was {wrong[:40]!r}"
        )
        return DigitScore(mass=share, missing=missing, unparsed=True, samples=len(texts))
    expected = sum(digits) / len(digits)
    most = max(sorted(set(digits)), key=digits.count)
    return DigitScore(score=(expected - 1) / 4, expected=expected, digit=most, mass=share, samples=len(texts))


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
        for role in ROLES
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
        (question.criterion, question.model_role, question.prompt_id): score
        for question, score in zip(questions, scores, strict=True)
    }
    compared = []
    for criterion in CRITERIA.values():
        asked = sorted({prompt for name, _, prompt in found if name == criterion.name})
        if not asked:
            continue
        base, tuned = ([found[criterion.name, role, prompt] for prompt in asked] for role in ROLES)
        both = [
            (one.score, other.score)
            for one, other in zip(base, tuned, strict=True)
            if one.score is not None and other.score is not None
        ]
        compared.append(
            JudgeScore(
                criterion=criterion.name,
                asked_of=criterion.asked_of,
                n=len(both),
                missing_base=sum(score.score is None for score in base),
                missing_tuned=sum(score.score is None for score in tuned),
                base=_mean([one for one, _ in both]),
                tuned=_mean([other for _, other in both]),
                change=mean_change([one for one, _ in both], [other for _, other in both]),
                mass_base=_mean([score.mass for score in base if score.mass is not None]),
                mass_tuned=_mean([score.mass for score in tuned if score.mass is not None]),
                unparsed_base=sum(score.unparsed for score in base),
                unparsed_tuned=sum(score.unparsed for score in tuned),
            )
        )
    return tuple(compared)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
