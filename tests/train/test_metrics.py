from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.train.metrics import MetricsWriter, build_rows
from pipeline_common.database import read_rows
from pipeline_common.tables import TABLES


def step(number: int, loss: float, tokens: int = 100, seconds: float = 0.5) -> dict[str, Any]:
    values = {"loss": loss, "learning_rate": number / 10, "grad_norm": number + 0.5, "epoch": number / 4}
    return {**values, "step": number, "tokens": tokens, "seconds": seconds, "entropy": 1.0}


LOG = [
    step(1, 4.0),
    step(2, 2.0, tokens=300),
    {"eval_loss": 3.5, "eval_runtime": 1.0, "step": 2, "epoch": 0.5},
    step(3, 1.0),
    {"train_runtime": 9.0, "train_loss": 2.3, "step": 3, "epoch": 0.75},
]


def test_a_row_is_the_mean_of_its_window_and_the_last_window_may_be_short() -> None:
    empty = {"learning_rate": None, "grad_norm": None, "tokens_per_second": None}
    assert build_rows(LOG, logging_steps=2, last_step=3) == [
        # (4 + 2) / 2; 400 tokens in 1 s; rate and norm of step 2 itself
        {"split": "train", "step": 2, "epoch": 0.5, "loss": 3.0, **measured(0.2, 2.5, 400.0)},
        {"split": "validation", "step": 2, "epoch": 0.5, "loss": 3.5, **empty},
        {"split": "train", "step": 3, "epoch": 0.75, "loss": 1.0, **measured(0.3, 3.5, 200.0)},
    ]


def measured(rate: float, norm: float, speed: float) -> dict[str, float]:
    return {"learning_rate": rate, "grad_norm": norm, "tokens_per_second": speed}


def test_rows_have_the_tables_columns() -> None:
    columns = set(TABLES["training_metrics"].columns.keys()) - {"run_id"}
    assert all(set(row) == columns for row in build_rows(LOG, logging_steps=1, last_step=3))


def test_the_file_is_current_and_the_database_gets_everything_once(tmp_path: Path) -> None:
    sent: list[dict[str, Any]] = []
    path = tmp_path / "metrics.jsonl"
    writer = MetricsWriter(path, sent.extend)
    rows = build_rows(LOG, logging_steps=1, last_step=3)
    writer.restart(rows[:2])
    for row in rows[2:]:
        writer.add(row)
    assert list(read_rows(path)) == rows
    assert sent == rows


def test_a_restart_replaces_what_an_earlier_attempt_wrote(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = build_rows(LOG, logging_steps=1, last_step=3)
    MetricsWriter(path, lambda _: None).restart(rows)
    MetricsWriter(path, lambda _: None).restart(rows[:1])
    assert list(read_rows(path)) == rows[:1]


def test_not_a_number_never_reaches_the_file(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path / "metrics.jsonl", lambda _: None)
    with pytest.raises(ValueError, match="JSON compliant"):
        writer.add({"loss": float("nan")})
