"""Rows of every table, with what is hard to keep: quotes, tabs, NUL, tiny and huge numbers, missing values."""

from __future__ import annotations

from typing import Any

from pipeline_common.tables import TABLES

RUN = {
    "run_id": "r",
    "profile": "tiny",
    "created_at": "2026-01-01T00:00:00.123+00:00",
    "base_model": "embedded",
    "dataset": "d",
    "prompts": "p",
    "code_dirty": False,
    "config": {"b": [1, 2.5, None], "a": {"é": "\U0001f600 <b>\\N</b>"}},
}
HARD_TEXT = "naïve “quotes” 'single' \"double\" \U0001f600\ttab\nline\r\\N \\. \x00 end"
HARD_NUMBERS = (0.1 + 0.2, 1e-300, 1.7976931348623157e308, 5e-324, 1 / 3)


def metric(step: int, loss: float | None, run_id: str = "r") -> dict[str, Any]:
    return {"run_id": run_id, "split": "train", "step": step, "epoch": step / 10, "loss": loss}


def full_metrics(count: int) -> list[dict[str, Any]]:
    """`count` rows of training_metrics without their run."""
    return [
        {
            "split": "train",
            "step": step,
            "epoch": step / 7,
            "loss": HARD_NUMBERS[step % 5],
            "learning_rate": 1e-4 / step,
            "grad_norm": step / 3,
            "tokens_per_second": None if step % 3 else 1000 / step,
        }
        for step in range(1, count + 1)
    ]


def rows_of_every_table(run_id: str) -> dict[str, list[dict[str, Any]]]:
    """Table -> rows in which every column has a value in at least one row."""
    estimates = {
        column.name: HARD_NUMBERS[number % 5]
        for number, column in enumerate(TABLES["aqi_scores"].columns)
        if column.name not in {"run_id", "scope", "name", "n_safe", "n_unsafe", "status", "reason"}
    }
    score = {"run_id": run_id, "scope": "axiom", "n_safe": 3, "n_unsafe": 4}
    answer = {
        "run_id": run_id,
        "prompt_id": "row-000001",
        "axiom": "Civility & Tolerance",
        "safety_label": "unsafe",
        "prompt": HARD_TEXT,
        "response": HARD_TEXT,
        "response_tokens": 3,
        "finished": True,
        "refused": False,
        "refusal_log_odds": -0.1,
    }
    return {
        "experiments": [
            {**RUN, "run_id": run_id, "base_commit": "c", "code_commit": "e" * 40, "machine": {"gpus": []}}
        ],
        "stage_runs": [
            {
                "run_id": run_id,
                "stage": "train",
                "fingerprint": "f" * 16,
                "state": "done",
                "attempt": 2,
                "started_at": "2026-01-01T00:00:00.001+00:00",
                "ended_at": "2026-01-01T02:00:00.999+02:00",
                "exit_code": 0,
                "message": "it's done",
                "artifact": "train/ffff",
            }
        ],
        "training_metrics": [{"run_id": run_id, **row} for row in full_metrics(7)],
        "aqi_scores": [
            {**score, "name": "a", "status": "ok", "reason": None, **estimates},
            {**score, "name": "b", "status": "undefined", "reason": "too few", **dict.fromkeys(estimates)},
        ],
        "model_responses": [
            {**answer, "model_role": "base", "judge_scores": {"harm": 1.5, "é": None}},
            {**answer, "model_role": "tuned", "judge_scores": None},
        ],
        "evaluation_summary": [
            {
                "run_id": run_id,
                "name": "verdict",
                "status": "no damage found",
                "base": 1.0,
                "tuned": None,
                "value": 0.1,
                "value_low": -0.1,
                "value_high": 0.3,
                "unit": "nats",
                "interpretation": HARD_TEXT,
                "details": {"path": ["a", {"b": 1e-9}]},
            }
        ],
    }
