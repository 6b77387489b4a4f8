"""Which labelled prompts are measured: stratified by axiom within each label, seeded, in whatever order they come."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pipeline_common.config import MIN_PER_CLASS
from pipeline_common.errors import InputError

SafetyLabel = Literal["safe", "unsafe"]
LABELS: Final[tuple[SafetyLabel, ...]] = ("safe", "unsafe")


@dataclass(frozen=True)
class LabelledPrompt:
    """One prompt as *prepare* left it."""

    prompt_id: str
    axiom: str
    safety_label: SafetyLabel
    source_dataset: str
    text: str

    @property
    def unsafe(self) -> bool:
        """Whether a well-behaved model refuses it."""
        return self.safety_label == "unsafe"


def parse_prompts(rows: Iterable[Mapping[str, object]]) -> list[LabelledPrompt]:
    """Rows of prompts.parquet as records.

    Raises:
        InputError: a label other than "safe" and "unsafe".
    """
    prompts = []
    for row in rows:
        label = row["safety_label"]
        if label != "safe" and label != "unsafe":
            raise InputError(f"prompt {row['prompt_id']} has the safety label {label!r}; expected safe or unsafe")
        prompts.append(
            LabelledPrompt(
                prompt_id=str(row["prompt_id"]),
                axiom=str(row["axiom"]),
                safety_label=label,
                source_dataset=str(row["source_dataset"]),
                text=str(row["text"]),
            )
        )
    return prompts


def select_prompts(
    prompts: Sequence[LabelledPrompt], per_class: int, seed: int, *, floor: int = MIN_PER_CLASS
) -> list[LabelledPrompt]:
    """Choose the prompts that are measured.

    Args:
        prompts: all clean prompts, in any order.
        per_class: how many of each label.
        seed: of the choice; the same seed and set of prompts give the same choice in whatever order they come.
        floor: fewest of each label that may be asked for; named in the message.

    Returns:
        `per_class` safe and `per_class` unsafe prompts, sorted by id. Within a label the axioms keep their shares
        (largest remainder).

    Raises:
        InputError: an id or a text occurs twice, or a label has fewer prompts than asked for.
    """
    _refuse_repeats(prompts)
    counts = Counter(prompt.safety_label for prompt in prompts)
    if any(counts[label] < per_class for label in LABELS):
        found = ", ".join(f"{counts[label]} {label}" for label in LABELS)
        most = min(counts[label] for label in LABELS)
        fewer = f"set evaluate.prompts_per_class to at most {most}"
        advice = fewer if most >= floor else f"{floor} per label are the floor"
        if MIN_PER_CLASS <= most < floor:
            advice += f" of learned layer weights: choose other evaluate.layers and {fewer}"
        raise InputError(
            f"evaluate.prompts_per_class={per_class} asks for {per_class} unique prompts of each label, but "
            f"there are {found}; {advice}, or give more labelled prompts (prepare.prompts)"
        )
    return take_stratified(prompts, per_class, seed)


def take_stratified(prompts: Sequence[LabelledPrompt], per_class: int | None, seed: int) -> list[LabelledPrompt]:
    """At most `per_class` prompts of each label (None = all), the axioms in their shares, sorted by id."""
    chosen: list[LabelledPrompt] = []
    for label in LABELS:
        strata: dict[str, list[LabelledPrompt]] = defaultdict(list)
        for prompt in prompts:
            if prompt.safety_label == label:
                strata[prompt.axiom].append(prompt)
        sizes = {axiom: len(members) for axiom, members in strata.items()}
        total = sum(sizes.values())
        quota = sizes if per_class is None else apportion(sizes, min(per_class, total))
        for axiom, members in strata.items():
            chosen.extend(sorted(members, key=lambda prompt: _draw(seed, prompt.prompt_id))[: quota[axiom]])
    return sorted(chosen, key=lambda prompt: prompt.prompt_id)


def apportion(sizes: Mapping[str, int], total: int) -> dict[str, int]:
    """Share `total` out in proportion to `sizes` by the largest remainder (Hamilton's method); ties by name.

    Args:
        sizes: members of each stratum.
        total: at most the sum of `sizes`.

    Returns:
        Stratum -> seats; the seats sum to `total` and none has more than its size.
    """
    whole = sum(sizes.values())
    if total > whole:
        raise ValueError(f"{total} seats for {whole} members")
    if not whole:
        return {}
    seats = {name: size * total // whole for name, size in sizes.items()}
    by_remainder = sorted(sizes, key=lambda name: (-(sizes[name] * total % whole), name))
    for name in by_remainder[: total - sum(seats.values())]:
        seats[name] += 1
    return seats


def _draw(seed: int, prompt_id: str) -> str:
    """A prompt's place in the lot: it depends on nothing but the seed and its id."""
    return hashlib.sha256(f"{seed} {prompt_id}".encode()).hexdigest()


def _refuse_repeats(prompts: Sequence[LabelledPrompt]) -> None:
    for what, values in (
        ("id", [prompt.prompt_id for prompt in prompts]),
        ("text", [prompt.text for prompt in prompts]),
    ):
        repeated = [value for value, count in Counter(values).items() if count > 1]
        if repeated:
            raise InputError(
                f"the labelled prompts hold {len(repeated)} {what}(s) more than once, first {repeated[0][:80]!r}; "
                "repeated prompts inflate every score: run prepare again on de-duplicated prompts"
            )
