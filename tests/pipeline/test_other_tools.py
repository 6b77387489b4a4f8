"""What a run leaves is opened by the tools people have already, by their own public functions."""

from __future__ import annotations

import json
import sqlite3

import datasets
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.pipeline.walking import artifact_of, run_ids


@pytest.fixture(scope="module")
def folder_of(walks):
    return lambda stage: artifact_of(walks.tiny.output, run_ids(walks.tiny.output)["tiny"], stage)


@pytest.mark.parametrize(
    ("stage", "name", "loader", "columns"),
    [
        ("prepare", "train.parquet", "parquet", {"row_id", "messages", "answer", "text", "input_ids"}),
        ("prepare", "validation.parquet", "parquet", {"row_id", "messages", "answer", "text", "input_ids"}),
        ("prepare", "prompts.parquet", "parquet", {"prompt_id", "axiom", "safety_label", "text"}),
        ("train", "training_metrics.jsonl", "json", {"split", "step", "loss"}),
        ("evaluate", "prompts.jsonl", "json", {"prompt_id", "axiom", "safety_label", "text"}),
        ("evaluate", "responses.jsonl", "json", {"prompt_id", "model_role", "response", "refused"}),
    ],
)
def test_datasets_loads_every_table_of_rows(folder_of, tmp_path, stage, name, loader, columns):
    path = folder_of(stage) / name
    loaded = datasets.load_dataset(loader, data_files=str(path), split="train", cache_dir=str(tmp_path))
    assert columns <= set(loaded.column_names)
    assert loaded.num_rows > 0
    if loader == "json":
        assert loaded.num_rows == len(path.read_text().splitlines())


def test_peft_loads_the_adapter_onto_the_base_model(folder_of, walks):
    facts = json.loads((folder_of("environment") / "base_model.json").read_text())
    base_folder = walks.tiny.output / "artifacts" / facts["base"]["artifact"]
    base = AutoModelForCausalLM.from_pretrained(base_folder).eval()
    tokens = AutoTokenizer.from_pretrained(base_folder)("How do I paint a boat?", return_tensors="pt")
    with torch.inference_mode():
        before = base(**tokens).logits
        tuned = PeftModel.from_pretrained(base, folder_of("train") / "adapter").eval()
        after = tuned(**tokens).logits
        with tuned.disable_adapter():
            without = tuned(**tokens).logits
    assert torch.equal(before, without)
    assert float((after - before).abs().max()) > 0.01


def test_a_browser_of_sqlite_files_finds_tables_views_keys_and_rows(walks):
    """What Datasette and its like ask of a file that they open without the right to write."""
    path = walks.tiny.output / "centralized.db"
    connection = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
    names = dict(connection.execute("SELECT name, type FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'").fetchall())
    assert {name for name, kind in names.items() if kind == "view"} == {"run_overview", "latest_aqi"}
    tables = [name for name, kind in names.items() if kind == "table" and name != "alembic_version"]
    assert len(tables) == 6
    for name in tables:
        columns = connection.execute(f"PRAGMA table_xinfo([{name}])").fetchall()
        assert any(column[5] for column in columns), f"{name} has no primary key"
        keys = connection.execute(f"PRAGMA foreign_key_list([{name}])").fetchall()
        assert [key[2] for key in keys] == ([] if name == "experiments" else ["experiments"])
        assert connection.execute(f"SELECT count(*) FROM [{name}]").fetchone()[0] > 0
    runs = connection.execute("SELECT run_id, verdict, f2_drop_pct FROM run_overview").fetchall()
    assert {verdict for _, verdict, _ in runs} == {"no damage found", "damaged"}
    scopes = {row[0] for row in connection.execute("SELECT DISTINCT scope FROM latest_aqi")}
    assert {"overall", "axiom"} <= scopes
    connection.close()
