from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors import safe_open

from jobs.evaluate.metric.geometry import score_geometry
from jobs.evaluate.records import read_prompts, score_rows, write_json_lines, write_tensors
from pipeline_common.errors import InputError
from pipeline_common.tables import TABLES


def test_tensors_have_the_same_bytes_each_time(tmp_path):
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    for name in ("one", "two"):
        write_tensors(
            tmp_path / name, {"b": values.T, "a": values}, {"prompt_ids": ["ä", "b"], "pooling": "last", "x": 1}
        )
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    with safe_open(tmp_path / "one", framework="np") as stored:
        assert json.loads(stored.metadata()["facts"])["prompt_ids"] == ["ä", "b"]
        assert np.array_equal(stored.get_tensor("b"), values.T)


def test_score_rows_have_the_columns_of_the_table():
    rng = np.random.default_rng(0)
    unsafe = np.arange(80) % 2 == 0
    base = rng.normal(size=(80, 3, 4)).astype(np.float32) + unsafe[:, None, None]
    scores = score_geometry(base, base, unsafe, ["A"] * 79 + ["B"], [f"{i:03d}" for i in range(80)], resamples=200)
    rows = score_rows(scores)
    columns = [column.name for column in TABLES["aqi_scores"].columns if column.name != "run_id"]
    assert all(list(row) == columns for row in rows)
    assert rows[0]["base_aqi"] == scores[0].base.aqi.value
    assert rows[0]["tuned_f2_low"] == scores[0].tuned.f2.low
    undefined = next(row for row in rows if row["name"] == "B")
    assert (undefined["status"], undefined["base_chi"]) == ("undefined", None)


def test_json_lines_refuse_nan(tmp_path):
    write_json_lines(tmp_path / "x", [{"a": "é\n"}])
    assert (tmp_path / "x").read_text(encoding="utf-8") == '{"a": "é\\n"}\n'
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json_lines(tmp_path / "x", [{"a": float("nan")}])


def test_a_file_that_is_no_parquet(tmp_path):
    (tmp_path / "prompts.parquet").write_text("prompt_id,text\n")
    with pytest.raises(InputError, match="no parquet file with the columns prompt_id"):
        read_prompts(tmp_path / "prompts.parquet")
