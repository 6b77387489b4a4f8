"""Wall time, CPU time and peak memory of `prepare` on generated rows of the real column shapes.

    python -m tests.benchmarks.bench_prepare [--rows 50000]

Builds the embedded base model with the environment stage, writes the rows into a temporary folder and runs
`python -m jobs.prepare` on them as a process of its own.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from tests.benchmarks.__main__ import Timing

COLUMNS: Final = ("Accepted Response", "Rejected Response", "Instruction generated", "Prompt")

# The real set: `Prompt` has mean 2,763 and median 2,311 characters, `Instruction generated` mean 397.
_INSTRUCTION_CHARS: Final = (397, 0.25)
_PROMPT_MEDIAN_CHARS: Final = 2311
_PROMPT_SIGMA: Final = 0.6
_PREAMBLE: Final = (
    "You are a careful teacher of writing. Two answers to the same conversation follow, one that readers preferred and "
    "one that they did not. Write one paragraph of advice that would lead a student from the second to the first. Say "
    "what to keep, what to leave out and which tone to take; do not quote the answers and do not mention the readers."
)
_CLOSING: Final = "Now write the paragraph of advice, and nothing else."
_VOWELS: Final = ("a", "e", "i", "o", "u", "en", "or")
_SYLLABLES: Final = tuple("".join(pair) for pair in itertools.product("bcdfglmnprst", _VOWELS))
_BATCH_ROWS: Final = 5000


class TextMaker:
    """English-like text: words of a Zipf vocabulary in sentences, deterministic for a seed."""

    def __init__(self, seed: int, vocabulary: int = 20_000, sentences: int = 20_000) -> None:
        self.rng = random.Random(seed)
        drawn = (self.rng.choices(_SYLLABLES, k=self.rng.choice((1, 2, 2, 3, 4))) for _ in range(vocabulary))
        words = sorted({"".join(syllables) for syllables in drawn})
        self.rng.shuffle(words)
        # Frequent words tend to be short ones, as in any language.
        words.sort(key=lambda word: len(word) + 6 * self.rng.random())
        weights = list(itertools.accumulate(1.0 / rank for rank in range(1, len(words) + 1)))
        self.sentences = [self._sentence(words, weights) for _ in range(sentences)]

    def _sentence(self, words: list[str], weights: list[float]) -> str:
        drawn = self.rng.choices(words, cum_weights=weights, k=self.rng.randint(6, 18))
        if self.rng.random() < 0.3:
            drawn[len(drawn) // 2] += ","
        return " ".join(drawn).capitalize() + self.rng.choice(".......?!")

    def text(self, characters: float) -> str:
        """Whole sentences of about so many characters, at least one."""
        drawn: list[str] = []
        length = 0
        while not drawn or length + 40 < characters:
            drawn.append(self.sentences[int(self.rng.random() * len(self.sentences))])
            length += len(drawn[-1]) + 1
        return " ".join(drawn)


def generate_rows(count: int, seed: int = 0) -> Iterator[dict[str, str]]:
    """Rows in the four columns and the lengths of the real fine-tuning set; one in 250 is a duplicate."""
    maker = TextMaker(seed)
    rng = maker.rng
    previous: dict[str, str] | None = None
    for number in range(count):
        if previous is not None and number % 250 == 249:
            yield previous
            continue
        # The prompt holds the history three times and both answers.
        length = rng.lognormvariate(math.log(_PROMPT_MEDIAN_CHARS), _PROMPT_SIGMA)
        rest = max(200.0, length - len(_PREAMBLE) - len(_CLOSING) - 120)
        exchanges = rng.choice((0, 0, 1, 2))
        unit = rest / (3 * (2 * exchanges + 1) * 0.5 + 2)
        history = "".join(
            f"\n\nHuman: {maker.text(unit * 0.5)}\n\nAssistant: {maker.text(unit * 0.5)}" for _ in range(exchanges)
        )
        history += f"\n\nHuman: {maker.text(unit * 0.5)}"
        accepted = f"{history}\n\nAssistant: {maker.text(unit)}"
        rejected = f"{history}\n\nAssistant: {maker.text(unit)}"
        mean, spread = _INSTRUCTION_CHARS
        previous = {
            "Accepted Response": accepted,
            "Rejected Response": rejected,
            "Instruction generated": maker.text(rng.gauss(mean, spread * mean)),
            "Prompt": f"{_PREAMBLE}\n\nConversation:{history}\n\nPreferred:{accepted}\n\n"
            f"Not preferred:{rejected}\n\n{_CLOSING}",
        }
        yield previous


def write_rows(path: Path, count: int, seed: int = 0) -> dict[str, float]:
    """Write the rows as Parquet; returns the mean characters of each column."""
    totals = dict.fromkeys(COLUMNS, 0)
    schema = pa.schema([(name, pa.string()) for name in COLUMNS])
    with pq.ParquetWriter(path, schema) as writer:
        rows_left = generate_rows(count, seed)
        while rows := list(itertools.islice(rows_left, _BATCH_ROWS)):
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            for row in rows:
                for name in COLUMNS:
                    totals[name] += len(row[name])
    return {name: total / count for name, total in totals.items()}


def bench(rows: int) -> list[Timing]:
    """Time the stage on so many rows; the environment stage before it is not counted.

    The rows are read from Parquet, as the real set is. `prepare.max_length` is the plan's.
    """
    from tests.benchmarks.__main__ import measure

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        means = write_rows(path, rows)
        sys.stderr.write("mean characters: " + ", ".join(f"{name} {mean:.0f}" for name, mean in means.items()) + "\n")
        settings = ("--config", "tiny", f"runtime.output_dir={folder}/output")
        measure("environment", "", sys.executable, "-m", "jobs.environment", *settings)
        command = (
            sys.executable,
            "-m",
            "jobs.prepare",
            *settings,
            f"prepare.dataset={path}",
            "prepare.max_length=1024",
        )
        return [measure(f"`prepare`, {rows:,} rows", "20 s wall, 1024 MiB", *command)]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    print("| command | wall s | CPU s | peak MiB | at most |\n| --- | --- | --- | --- | --- |")
    print("\n".join(timing.row() for timing in bench(parser.parse_args().rows)))


if __name__ == "__main__":
    main()
