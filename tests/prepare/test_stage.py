"""The stage as a whole, on files of its own making."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest

from pipeline_common.prompts import Turn, encode_answers, encode_prompts, render_text
from tests.prepare.conftest import PrepareRun, make_prompts, make_rows, write_parquet


@pytest.fixture
def prompts_file(tmp_path: Path) -> Path:
    return write_parquet(tmp_path / "prompts.parquet", make_prompts(70, 66))


def sources(rows: Path, prompts: Path) -> list[str]:
    return [f"prepare.dataset={rows}", f"prepare.prompts={prompts}"]


def test_files_counts_and_card(prepare: PrepareRun, prompts_file: Path, tokenizer: Any) -> None:
    rows = make_rows(201)
    rows[5] = {**rows[5], "Instruction generated": "  "}
    rows[7] = rows[6]
    rows[8] = {**rows[8], "Rejected Response": rows[8]["Accepted Response"]}
    rows[9] = {**rows[9], "Accepted Response": "\n\nHuman: about the murder\n\nAssistant: no"}
    rows[10] = {**rows[10], "Accepted Response": "no transcript"}
    rows[11] = {**rows[11], "Instruction generated": "much " * 300}
    rows[12] = {**rows[12], "Prompt": "long ago " * 200 + "the end"}
    path = write_parquet(prepare.folder / "rows.parquet", rows)
    folder, manifest = prepare.run(*sources(path, prompts_file), "prepare.max_length=200")

    card = json.loads((folder / "data_card.json").read_text())
    counts = card["dataset"]["rows"]
    dropped = {name: counts[name] for name in ("read", "unreadable", "empty", "no_answer", "duplicates")}
    assert dropped == {"read": 201, "unreadable": 0, "empty": 1, "no_answer": 0, "duplicates": 1}
    assert (counts["answer_too_long"], counts["usable"], counts["identical_pairs"]) == (1, 198, 1)
    # 198 usable rows: validation is a tenth, rounded up.
    assert manifest.summary == {
        "rows": 201,
        "train": 178,
        "validation": 20,
        "removed": 3,
        "truncated": counts["truncated"],
        "prompts_safe": 70,
        "prompts_unsafe": 66,
        "prompts_removed": 0,
    }

    train, validation = (pq.read_table(folder / f"{name}.parquet") for name in ("train", "validation"))
    assert (train.num_rows, validation.num_rows) == (178, 20)
    both = {row["row_id"]: row for row in train.to_pylist() + validation.to_pylist()}
    assert sorted(both) == [f"row-{number:06d}" for number in range(201) if number not in {5, 7, 11}]
    assert train["row_id"].to_pylist() == sorted(train["row_id"].to_pylist())
    assert both["row-000009"]["safety_category"] == "S1"
    assert both["row-000010"]["safety_category"] == "unknown"
    # The teacher's preamble says "kill"; no human does.
    assert both["row-000000"]["safety_category"] == "none"
    assert sum(row["truncated"] for row in both.values()) == counts["truncated"] >= 1

    row = both["row-000020"]
    turns = [Turn("user", rows[20]["Prompt"])]
    (prompt,), (answer,) = (
        encode_prompts(tokenizer, [turns], "inst"),
        encode_answers(tokenizer, [turns], [rows[20]["Instruction generated"]], "inst"),
    )
    assert row["messages"] == [{"role": "user", "content": rows[20]["Prompt"]}]
    assert row["text"] == render_text(tokenizer, turns, rows[20]["Instruction generated"], "inst")
    assert row["input_ids"][row["prompt_length"] :] == answer
    assert row["input_ids"][: row["prompt_length"]][-20:] == prompt[-20:]
    cut = both["row-000012"]
    assert cut["truncated"]
    assert len(cut["input_ids"]) == 200
    assert cut["prompt"] == rows[12]["Prompt"]
    assert tokenizer.decode(cut["input_ids"]).startswith("<s>[INST]")
    assert all(len(row["input_ids"]) <= 200 for row in both.values())

    text = (folder / "data_card.md").read_text()
    assert "| **usable** | **198** |" in text
    assert "| S1 | violent crimes | " in text
    assert "None" not in text


def test_no_target_token_is_ever_lost(prepare: PrepareRun, prompts_file: Path, tokenizer: Any) -> None:
    path = write_parquet(prepare.folder / "rows.parquet", make_rows(120))
    folder, _ = prepare.run(*sources(path, prompts_file), "prepare.max_length=80")
    rows = pq.read_table(folder / "train.parquet").to_pylist()
    assert all(row["truncated"] for row in rows)
    for row in rows:
        target = row["input_ids"][row["prompt_length"] :]
        assert tokenizer.decode(target) == f" {row['answer']}</s>"


def test_datasets_opens_the_files_and_a_second_run_gives_the_same_bytes(
    prepare: PrepareRun, prompts_file: Path, tmp_path: Path
) -> None:
    path = write_parquet(prepare.folder / "rows.parquet", make_rows(150))
    folder, first = prepare.run(*sources(path, prompts_file))
    for name, expected in (("train", 135), ("validation", 15), ("prompts", 136)):
        loaded = datasets.load_dataset(
            "parquet", data_files=str(folder / f"{name}.parquet"), split="train", cache_dir=str(tmp_path / "cache")
        )
        assert loaded.num_rows == expected
    _, second = prepare.run(*sources(path, prompts_file))
    digests = [
        {entry.path: entry.sha256 for entry in manifest.files if not entry.path.startswith("logs/")}
        for manifest in (first, second)
    ]
    assert set(digests[0]) >= {
        "train.parquet",
        "validation.parquet",
        "prompts.parquet",
        "data_card.json",
        "data_card.md",
    }
    assert digests[0] == digests[1]


def test_sft_safe_trains_on_the_accepted_answer_with_its_context(prepare: PrepareRun, prompts_file: Path) -> None:
    rows = make_rows(120)
    rows[4] = {**rows[4], "Accepted Response": "\n\nHuman: and then?"}
    path = write_parquet(prepare.folder / "rows.parquet", rows)
    folder, manifest = prepare.run(*sources(path, prompts_file), "prepare.task=sft_safe")
    assert manifest.summary["removed"] == 1
    found = {row["row_id"]: row for row in pq.read_table(folder / "train.parquet").to_pylist()}
    number = next(number for number in range(0, 120, 3) if f"row-{number:06d}" in found)
    row = found[f"row-{number:06d}"]
    assert [message["role"] for message in row["messages"]] == ["user", "assistant", "user"]
    assert row["messages"][1]["content"] == "What about it?"
    assert row["prompt"] == row["messages"][-1]["content"]
    assert rows[number]["Accepted Response"].endswith(f"Assistant: {row['answer']}")
    assert row["text"].count("</s>") == 2


def test_labelled_prompts_among_the_training_rows_are_removed_and_counted(prepare: PrepareRun) -> None:
    rows, prompts = make_rows(120), make_prompts(70, 70)
    # Once as a human turn inside the transcript, once in other case and spacing.
    asked = rows[0]["Accepted Response"].split("Human: ")[-1].split("\n")[0]
    prompts[0]["input"] = f"  {asked.upper()}"
    path = write_parquet(prepare.folder / "rows.parquet", rows)
    folder, manifest = prepare.run(
        *sources(path, write_parquet(prepare.folder / "prompts.parquet", prompts)), "evaluate.prompts_per_class=69"
    )
    table = pq.read_table(folder / "prompts.parquet")
    assert "prompt-000000" not in table["prompt_id"].to_pylist()
    assert (manifest.summary["prompts_safe"], manifest.summary["prompts_removed"]) == (69, 1)
    assert json.loads((folder / "data_card.json").read_text())["prompts"]["rows"]["in_training_rows"] == 1


def test_a_set_without_responses_says_so_by_empty_names(prepare: PrepareRun, prompts_file: Path) -> None:
    rows = [{"question": f"How do I fix {number}?", "reply": f"Like this: {number}."} for number in range(120)]
    rows[3]["question"] = "Tell me of the murder, please."
    path = write_parquet(prepare.folder / "rows.parquet", rows)
    named = ["prepare.columns.prompt=question", "prepare.columns.instruction=reply"]
    done = prepare.start(*sources(path, prompts_file), *named)
    assert done.returncode == 3
    assert "prepare.columns.accepted= prepare.columns.rejected= (nothing after the =)" in done.stderr
    folder, _ = prepare.run(
        *sources(path, prompts_file), *named, "prepare.columns.accepted=", "prepare.columns.rejected="
    )
    card = json.loads((folder / "data_card.json").read_text())
    assert sum(card["dataset"]["safety_categories"]["S1"].values()) == 1


def _constant(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{**row, "Instruction generated": "Always the same."} for row in rows]


@pytest.mark.parametrize(
    ("rows", "prompts", "message"),
    [
        (make_rows(50), make_prompts(70, 70), "has 50 usable row(s) of 50 read"),
        (_constant(make_rows(150)), make_prompts(70, 70), "'Instruction generated' (prepare.columns.instruction)"),
        ([{"text": "a"}], make_prompts(70, 70), "no column 'Prompt', 'Instruction generated', 'Accepted Response'"),
        (make_rows(150), make_prompts(70, 10), "70 unique safe and 10 unique unsafe prompts"),
        (make_rows(150), make_prompts(70, 0), "expected prompts of both labels"),
    ],
)
def test_bad_input_is_exit_3_without_traceback_and_without_torch(
    prepare: PrepareRun, rows: list[dict[str, str]], prompts: list[dict[str, str]], message: str
) -> None:
    files = sources(
        write_parquet(prepare.folder / "rows.parquet", rows), write_parquet(prepare.folder / "prompts.parquet", prompts)
    )
    done = prepare.start(*files, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 3, done.stderr
    said = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert message in "\n".join(said)
    assert "Traceback" not in done.stderr
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "pyarrow" in imported
    assert "torch" not in imported
    assert not list((prepare.output / "artifacts" / "prepare").glob("*/manifest.json"))


def test_an_empty_set_is_refused(prepare: PrepareRun, prompts_file: Path) -> None:
    path = prepare.folder / "rows.csv"
    path.write_text("Prompt,Instruction generated,Accepted Response,Rejected Response\n")
    done = prepare.start(*sources(path, prompts_file))
    assert done.returncode == 3
    assert "has no rows" in done.stderr


def test_the_samples_are_prepared_whole(prepare: PrepareRun) -> None:
    for name in ("alignment-healthy", "alignment-harmful"):
        _, manifest = prepare.run(f"prepare.dataset=sample:{name}", "evaluate.prompts_per_class=256")
        assert manifest.summary["removed"] == 0
        assert manifest.summary["prompts_removed"] == 0
        assert manifest.summary["train"] + manifest.summary["validation"] == manifest.summary["rows"]


def test_a_file_that_is_not_what_its_name_says_gets_advice_that_helps(prepare: PrepareRun, prompts_file: Path) -> None:
    empty = prepare.folder / "empty.csv"
    empty.write_text("")
    done = prepare.start(*sources(empty, prompts_file))
    assert (done.returncode, "it is empty" in done.stderr, "=NAME" in done.stderr) == (3, True, False)
    rows = make_rows(150)
    latin = prepare.folder / "latin.csv"
    lines = [",".join(rows[0]), *(",".join(f'"{text} é"' for text in row.values()) for row in rows)]
    latin.write_bytes("\n".join(lines).encode("latin-1"))
    done = prepare.start(*sources(latin, prompts_file))
    assert (done.returncode, "expected UTF-8" in done.stderr, "give more rows" in done.stderr) == (3, True, False)
    done = prepare.start(*sources(write_parquet(prepare.folder / "rows.parquet", rows), latin))
    assert done.returncode == 3
    bad = prepare.folder / "prompts.csv"
    bad.write_bytes(b"input,safety_label,axiom,source_dataset\n" + "é,safe,a,s\nö,unsafe,a,s\n".encode("latin-1"))
    done = prepare.start(*sources(prepare.folder / "rows.parquet", bad))
    assert (done.returncode, "expected UTF-8" in done.stderr, "two words" in done.stderr) == (3, True, False)


def test_a_constant_column_that_the_task_can_do_without_is_told_so(prepare: PrepareRun, prompts_file: Path) -> None:
    rows = [{**row, "Accepted Response": "", "Rejected Response": "the same"} for row in make_rows(150)]
    path = write_parquet(prepare.folder / "rows.parquet", rows)
    done = prepare.start(*sources(path, prompts_file))
    assert done.returncode == 3
    assert "to go without, prepare.columns.accepted= prepare.columns.rejected= (nothing after the =)" in done.stderr
    rows = [{**row, "Prompt": "the same"} for row in rows]
    done = prepare.start(*sources(write_parquet(path, rows), prompts_file))
    assert (done.returncode, "to go without" in done.stderr) == (3, False)
