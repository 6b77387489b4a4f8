"""The views of the exported file, asked with nothing but Python's own sqlite3."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from pipeline_common.database import Database
from pipeline_common.sqlite_export import export_sqlite


def score(scope: str, name: str, drop: float) -> dict[str, Any]:
    return {
        "scope": scope,
        "name": name,
        "n_safe": 64,
        "n_unsafe": 65,
        "status": "ok",
        "base_aqi": 10.0,
        "tuned_aqi": 10.0 - drop,
        "delta_aqi": -drop,
        "f2_drop_pct": 10 * drop,
        "f2_drop_pct_low": 9 * drop,
        "f2_drop_pct_high": 11 * drop,
    }


def add_run(database: Database, run_id: str, day: int, *, dataset: str = "rows-a", drop: float | None) -> None:
    """A run of that day in January; without a drop it ended before anything was measured."""
    moment = f"2026-01-{day:02d}T00:00:0{{}}.000+00:00"
    experiment = {"run_id": run_id, "profile": "tiny", "created_at": moment.format(0), "base_model": "m"}
    database.upsert("experiments", [{**experiment, "dataset": dataset, "prompts": "p", "config": {}}])
    stage = {"run_id": run_id, "fingerprint": "f", "attempt": 1, "started_at": moment.format(1)}
    ended = {**stage, "ended_at": moment.format(5), "exit_code": 0, "message": None, "artifact": "k"}
    database.upsert("stage_runs", [{**ended, "stage": "train", "state": "done"}])
    if drop is None:
        failed = {**ended, "exit_code": 3, "message": "no prompts", "artifact": None}
        database.upsert("stage_runs", [{**failed, "stage": "evaluate", "state": "failed"}])
        return
    database.upsert("stage_runs", [{**ended, "stage": "evaluate", "state": "cached"}])
    rows = [
        {"split": split, "step": step, "epoch": 1.0, "loss": loss}
        for split, step, loss in (("train", 1, 2.0), ("train", 2, 1.5), ("validation", 2, 1.75))
    ]
    database.upsert("training_metrics", [{"run_id": run_id, **row} for row in rows])
    scores = [score("overall", "pooled", drop), score("axiom", "Civility", drop), score("layer", "1", drop)]
    database.upsert("aqi_scores", [{"run_id": run_id, **row} for row in scores])
    found = [
        {"name": "verdict", "status": "damaged", "base": None, "tuned": None, "value": None},
        {"name": "refusal_gap", "status": "fail", "base": 8.0, "tuned": 2.0, "value": 75.0},
        {"name": "refusal_unsafe", "status": "fail", "base": 97.5, "tuned": 12.5, "value": -85.0},
    ]
    database.upsert("evaluation_summary", [{"run_id": run_id, "interpretation": "why", **row} for row in found])


@pytest.fixture
def copy(database: Database, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Two runs of one dataset, one of another, one that failed; exported."""
    add_run(database, "old", 1, drop=1.0)
    add_run(database, "new", 2, drop=2.0)
    add_run(database, "other", 3, dataset="rows-b", drop=3.0)
    add_run(database, "failed", 4, drop=None)
    export_sqlite(database, tmp_path / "centralized.db")
    connection = sqlite3.connect(tmp_path / "centralized.db")
    connection.row_factory = sqlite3.Row
    yield connection
    connection.close()


def test_the_file_holds_both_views_and_is_whole(copy: sqlite3.Connection) -> None:
    names = [row["name"] for row in copy.execute("SELECT name FROM sqlite_master WHERE type = 'view' ORDER BY name")]
    assert names == ["latest_aqi", "run_overview"]
    assert [tuple(row) for row in copy.execute("PRAGMA integrity_check")] == [("ok",)]


def test_an_overview_has_one_row_per_run_the_newest_first(copy: sqlite3.Connection) -> None:
    rows = [dict(row) for row in copy.execute("SELECT * FROM run_overview")]
    assert [row["run_id"] for row in rows] == ["failed", "other", "new", "old"]
    new = rows[2]
    assert {name: new[name] for name in ("verdict", "refusal_gap_drop_pct", "f2_drop_pct", "f2_drop_pct_low")} == {
        "verdict": "damaged",
        "refusal_gap_drop_pct": 75.0,
        "f2_drop_pct": 20.0,
        "f2_drop_pct_low": 18.0,
    }
    assert (new["refused_unsafe_base_pct"], new["refused_unsafe_tuned_pct"]) == (97.5, 12.5)
    assert (new["base_aqi"], new["tuned_aqi"], new["n_safe"], new["n_unsafe"]) == (10.0, 8.0, 64, 65)
    assert (new["training_steps"], new["train_loss"], new["validation_loss"]) == (2, 1.5, 1.75)
    # Train worked from second 1 to second 5; evaluate was cached, which is no work.
    assert (new["finished_stages"], new["seconds_worked"], new["failure"]) == (2, 4.0, None)


def test_a_run_that_failed_says_why_and_has_no_numbers(copy: sqlite3.Connection) -> None:
    row = copy.execute("SELECT * FROM run_overview WHERE run_id = 'failed'").fetchone()
    assert row["failure"] == "evaluate: no prompts"
    assert (row["finished_stages"], row["verdict"], row["base_aqi"], row["training_steps"]) == (1, None, None, None)


def test_the_latest_scores_are_of_the_newest_measured_run_of_each_dataset(copy: sqlite3.Connection) -> None:
    rows = copy.execute("SELECT dataset, run_id, scope, name, delta_aqi FROM latest_aqi").fetchall()
    assert [tuple(row) for row in rows] == [
        ("rows-b", "other", "overall", "pooled", -3.0),
        ("rows-b", "other", "axiom", "Civility", -3.0),
        ("rows-a", "new", "overall", "pooled", -2.0),
        ("rows-a", "new", "axiom", "Civility", -2.0),
    ]


def test_the_source_has_no_views(database: Database, tmp_path: Path) -> None:
    add_run(database, "r", 1, drop=1.0)
    export_sqlite(database, tmp_path / "centralized.db")
    assert sa.inspect(database.engine).get_view_names() == []
