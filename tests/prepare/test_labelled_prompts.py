from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.prepare.labelled_prompts import (
    LONGEST_AXIOM,
    LabelledPrompt,
    PromptCounts,
    check_enough,
    measure_prompts,
    prompt_table,
    read_prompts,
)
from jobs.prepare.reading import Source, open_source
from pipeline_common.config import PromptColumns
from pipeline_common.errors import InputError
from pipeline_common.tables import AQI_SCORES
from tests.prepare.conftest import make_prompts, write_parquet

COLUMNS = PromptColumns()


def source_of(rows: list[dict[str, str]], folder: Path) -> Source:
    return open_source(str(write_parquet(folder / "prompts.parquet", rows)), None, folder, offline=True)


def row(text: str, label: str, axiom: str = "Duty", source: str = "made") -> dict[str, str]:
    return {"axiom": axiom, "safety_label": label, "source_dataset": source, "input": text, "target": ""}


def test_every_row_is_counted_once_and_ids_come_from_the_source_row(tmp_path: Path) -> None:
    rows = [
        row("", "safe"),
        row("First", "safe"),
        row("first ", "SAFE"),
        row("Second", "Unsafe "),
        row("Third", "neutral"),
        row("Fourth", ""),
        row("Fifth", "safe", axiom=""),
        row("Both", "safe"),
        row("both", "unsafe"),
        row("Sixth", "unsafe", source=""),
    ]
    prompts, counts = read_prompts(source_of(rows, tmp_path), COLUMNS)
    assert [(prompt.prompt_id, prompt.safety_label, prompt.text) for prompt in prompts.values()] == [
        ("prompt-000001", "safe", "First"),
        ("prompt-000003", "unsafe", "Second"),
        ("prompt-000009", "unsafe", "Sixth"),
    ]
    assert list(prompts.values())[-1].source_dataset == "unknown"
    assert counts.read == 10
    assert counts.empty == 1
    assert counts.other_labels == {"": 1, "neutral": 1}
    assert counts.without_axiom == 1
    assert counts.duplicates == 2
    assert counts.contradictory == 1


def test_no_axiom_column_means_one_axiom(tmp_path: Path) -> None:
    rows = [{"input": f"Request {label}", "safety_label": label} for label in ("safe", "unsafe")]
    columns = PromptColumns(axiom="", source_dataset="")
    prompts, _ = read_prompts(source_of(rows, tmp_path), columns)
    assert {(prompt.axiom, prompt.source_dataset) for prompt in prompts.values()} == {("all", "unknown")}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (make_prompts(5, 0), "expected prompts of both labels, 'safe' and 'unsafe'; found safe;"),
        ([row("a", "0"), row("b", "1"), row("c", "1")], r"found none, and others: '0' \(1\), '1' \(2\);"),
        (
            [{"input": "a", "label": "safe"}],
            r"no column 'safety_label', 'axiom', 'source_dataset'; it has 'input', 'lab",
        ),
        ([row("same", "safe"), row("Same", "unsafe"), row("same ", "safe")], "all prompts are one text"),
    ],
)
def test_unusable_labels_are_refused(rows: list[dict[str, str]], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read_prompts(source_of(rows, tmp_path), COLUMNS)


@pytest.mark.parametrize("length", [LONGEST_AXIOM, LONGEST_AXIOM + 1])
def test_texts_in_the_place_of_axioms_are_refused_before_a_database_does(length: int, tmp_path: Path) -> None:
    assert AQI_SCORES.c.name.type.length == LONGEST_AXIOM
    source = source_of([row("a", "safe", axiom="x" * length), row("b", "unsafe")], tmp_path)
    if length == LONGEST_AXIOM:
        assert len(read_prompts(source, COLUMNS)[0]) == 2
        return
    with pytest.raises(InputError, match=r"'axiom' has 129 characters.* set prepare\.prompt_columns\.axiom=NAME"):
        read_prompts(source, COLUMNS)


def test_an_empty_set_is_refused(tmp_path: Path) -> None:
    (tmp_path / "prompts.csv").write_text("axiom,safety_label,source_dataset,input,target\n")
    with pytest.raises(InputError, match="has no rows"):
        read_prompts(open_source(str(tmp_path / "prompts.csv"), None, tmp_path, offline=True), COLUMNS)


def labelled(safe: int, unsafe: int) -> list[LabelledPrompt]:
    labels = ["safe"] * safe + ["unsafe"] * unsafe
    return [
        LabelledPrompt(f"prompt-{number:06d}", "Duty", label, "made", f"text {number}")
        for number, label in enumerate(labels)
    ]


def test_ten_unsafe_prompts_are_too_few() -> None:
    with pytest.raises(InputError, match=r"has 100 unique safe and 10 unique unsafe prompts .* at least 64 of each"):
        check_enough("set.csv", labelled(100, 10), 64, PromptCounts(read=110))
    with pytest.raises(InputError, match="at least 64"):
        check_enough("set.csv", labelled(63, 100), 64, PromptCounts(read=163))


def test_fewer_than_the_evaluation_wants_names_the_option() -> None:
    with pytest.raises(InputError, match=r"set evaluate\.prompts_per_class=80 "):
        check_enough("set.csv", labelled(100, 80), 256, PromptCounts(read=180))
    check_enough("set.csv", labelled(100, 80), 80, PromptCounts(read=180))


def test_too_few_for_learned_layers_are_not_sent_to_a_number_that_the_configuration_refuses() -> None:
    with pytest.raises(InputError, match=r"evaluate\.layers=learned needs 128 of each: choose other"):
        check_enough("set.csv", labelled(200, 100), 256, PromptCounts(read=300), floor=128)
    with pytest.raises(InputError, match=r"=150 \(or any number from 128 to 150\)"):
        check_enough("set.csv", labelled(200, 150), 256, PromptCounts(read=350), floor=128)


def test_a_prompt_longer_than_allowed_is_left_out_not_cut(tokenizer: Any) -> None:
    prompts = [
        LabelledPrompt("prompt-000000", "Duty", "safe", "made", "How?"),
        LabelledPrompt("prompt-000001", "Duty", "safe", "made", "How " * 100),
    ]
    (kept,) = measure_prompts(tokenizer, prompts, "inst", 40)
    assert kept.prompt_id == "prompt-000000"
    # BOS and the tokens of "[INST] How? [/INST]"
    assert kept.prompt_tokens == 1 + len(tokenizer("[INST] How? [/INST]", add_special_tokens=False)["input_ids"])


def test_the_table_is_sorted_by_id() -> None:
    table = prompt_table(labelled(2, 2)[::-1])
    assert table["prompt_id"].to_pylist() == [f"prompt-{number:06d}" for number in range(4)]
    assert str(table.schema.field("prompt_tokens").type) == "int32"
