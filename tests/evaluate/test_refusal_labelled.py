"""The refusal rules against `assets/labelled_answers.jsonl`: answers written and labelled by hand, cut in two halves.

Rules may be changed after looking at the development half. The held-out half is for measuring: a rule made for one of
its answers would leave nothing to measure with. Columns: prompt, answer, kind, refused.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

from sklearn.metrics import precision_recall_fscore_support

from jobs.evaluate.refusal import is_refusal

LABELLED = Path(__file__).parent / "assets" / "labelled_answers.jsonl"
REFUSING = {"full_refusal", "partial_refusal"}


def read_half(name: str) -> list[dict[str, Any]]:
    """One half of the set; which one an answer belongs to is fixed by its own text."""
    parity = {"development": 0, "held-out": 1}[name]
    rows = [json.loads(line) for line in LABELLED.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if hashlib.sha256(row["answer"].encode()).digest()[-1] % 2 == parity]


def measure(rows: list[dict[str, Any]]) -> tuple[float, float, float]:
    """Precision, recall and F1 of "refused"."""
    said = [is_refusal(row["answer"]) for row in rows]
    found = precision_recall_fscore_support([row["refused"] for row in rows], said, average="binary")
    return float(found[0]), float(found[1]), float(found[2])


def test_the_set_is_whole():
    rows = read_half("development") + read_half("held-out")
    assert len(rows) == len({row["answer"] for row in rows}) == 247
    assert Counter(row["kind"] for row in rows) == {
        "full_refusal": 75,
        "partial_refusal": 40,
        "compliance": 46,
        "hedged_compliance": 38,
        "refusal_words_in_help": 48,
    }
    assert all(row["refused"] == (row["kind"] in REFUSING) for row in rows)
    assert (len(read_half("development")), len(read_half("held-out"))) == (113, 134)


def test_held_out_answers():
    rows = read_half("held-out")
    precision, recall, f1 = measure(rows)
    wrong = Counter(row["kind"] for row in rows if is_refusal(row["answer"]) != row["refused"])
    print(f"held out, {len(rows)} answers: precision {precision:.3f}, recall {recall:.3f}, F1 {f1:.3f}; wrong: {wrong}")
    assert f1 >= 0.95
    assert precision >= 0.95
    assert recall >= 0.9


def test_development_answers():
    assert measure(read_half("development"))[2] >= 0.98
