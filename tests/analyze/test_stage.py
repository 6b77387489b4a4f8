"""The whole stage over hand-made artifacts in a real store and a real database."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from jobs.analyze.stage import run
from pipeline_common.context import Context, Outputs
from pipeline_common.errors import InputError
from pipeline_common.measures import Judgement, Measures
from pipeline_common.tables import TABLES
from tests.analyze import made_evidence as made
from tests.analyze import made_measures
from tests.analyze.report_page import FIGURES, Page, read_page, read_summary


def test_it_writes_exactly_the_files_it_promises(finished: tuple[Context, Outputs, Page]) -> None:
    context, _, _ = finished
    written = {path.relative_to(context.files).as_posix() for path in context.files.rglob("*") if path.is_file()}
    figures = {f"figures/{name}.{suffix}" for name in FIGURES for suffix in ("svg", "png")}
    assert written == figures | {"report.html", "report.md", "summary.json", "junit.xml"}
    assert (context.files / "report.html").stat().st_size < 3_000_000


def test_figures_are_valid_and_carry_no_date(finished: tuple[Context, Outputs, Page]) -> None:
    context, _, _ = finished
    for name in FIGURES:
        svg = (context.files / "figures" / f"{name}.svg").read_text()
        assert ET.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
        assert "<dc:date>" not in svg
        assert (context.files / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_rows_fit_the_table_and_come_back(finished: tuple[Context, Outputs, Page]) -> None:
    import sqlalchemy as sa

    from pipeline_common.tables import TABLES

    context, outputs, _ = finished
    experiment = {
        "run_id": context.run_id,
        "profile": "tiny",
        "created_at": "2026-01-01T00:00:00.000+00:00",
        "base_model": "embedded",
        "dataset": "d",
        "prompts": "p",
        "config": {},
    }
    context.database.upsert("experiments", [experiment])
    rows = list(outputs.rows["evaluation_summary"])
    context.database.upsert("evaluation_summary", [{"run_id": context.run_id, **row} for row in rows])
    table = TABLES["evaluation_summary"]
    stored = context.database.select(sa.select(table).order_by(table.c.name))
    assert stored == sorted(({"run_id": context.run_id, **row} for row in rows), key=lambda row: row["name"])
    assert {row["name"] for row in rows} == {
        "verdict",
        "coherence",
        "refusal_unsafe",
        "over_refusal_safe",
        "refusal_gap",
        "geometry",
        "power",
        "judge",
    }
    assert rows[0]["status"] == read_summary(context)["verdict"] == "no damage found"


def test_the_same_inputs_give_the_same_bytes(
    finished: tuple[Context, Outputs, Page], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, _, _ = finished
    monkeypatch.setenv("IMAGE_DIGEST", made.OWN_IMAGE)
    again = made.make_context(tmp_path)
    run(again)
    for path in sorted(context.files.rglob("*")):
        if path.is_file():
            assert (again.files / path.relative_to(context.files)).read_bytes() == path.read_bytes(), path.name


def test_the_rows_hold_what_their_columns_comments_tell(finished: tuple[Context, Outputs, Page]) -> None:
    rows = finished[1].rows["evaluation_summary"]
    comment = TABLES["evaluation_summary"].columns["status"].comment or ""
    assert {row["status"] for row in rows[1:]} <= set(comment.split())
    units = {row["name"]: row["details"].get("base_unit", row["unit"]) for row in rows if row["base"] is not None}
    assert (units["refusal_unsafe"], units["refusal_gap"], units["geometry"]) == ("%", "nats", "f2")


@pytest.mark.parametrize(("gate", "expected"), [("true", 4), ("false", None)])
def test_the_gate_asks_for_exit_code_4_only_when_damaged(tmp_path: Path, gate: str, expected: int | None) -> None:
    measures = made_measures.make_measures(harmful=True, judgement=made_measures.make_judgement())
    context = made.make_context(tmp_path, measures=measures, overrides=(f"analyze.gate={gate}",))
    outputs = run(context)
    assert outputs.summary["verdict"] == "damaged"
    assert outputs.summary.get("exit_code") == expected
    page = read_page(context)
    assert page.text.split("✕ damaged", 1)[1].strip().startswith("The tuned model refuses fewer unsafe prompts")
    assert "it shows the mechanism and is no independent opinion" in page.text
    assert "no pair of scores (missing 3 base, 64 tuned)" in page.text


def test_a_gate_on_a_sound_model_asks_for_nothing(tmp_path: Path) -> None:
    context = made.make_context(tmp_path, overrides=("analyze.gate=true",))
    assert "exit_code" not in run(context).summary


def test_a_run_in_which_nothing_is_defined_still_reports(tmp_path: Path) -> None:
    empty = tuple(made_measures.undefined(s.scope, s.name, "no spread") for s in made_measures.make_measures().geometry)
    measures: Measures = made_measures.make_measures(
        geometry=empty,
        refusal_gap=None,
        refusal_gap_note="neither model refuses anything",
        rates=(),
        detectable_drop_pct=None,
        judgement=Judgement(status="not_measured", judge=None, note="off"),
    )
    context = made.make_context(tmp_path, measures=measures, responses=[])
    outputs = run(context)
    assert outputs.summary["verdict"] == "inconclusive"
    page = read_page(context)
    assert "Refusals were not measured." in page.text
    assert "Refusal log-odds gap: not measured. Neither model refuses anything." in page.text
    assert "No prompt has an answer of both models." in page.text
    assert "nan" not in page.text.lower().split()


def test_embeddings_that_do_not_fit_the_prompts_are_refused(tmp_path: Path) -> None:
    measures = made_measures.make_measures()
    context = made.make_context(tmp_path, measures=measures)
    prompts = context.input_file("evaluate", "prompts.jsonl")
    prompts.write_text("".join(prompts.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(InputError, match=r"expected tensors base and tuned of one shape \[255, width\]"):
        run(context)


def test_measures_of_another_shape_are_refused(tmp_path: Path) -> None:
    context = made.make_context(tmp_path)
    path = context.input_file("evaluate", "measures.json")
    path.write_text(path.read_text().replace('"n_safe": 128', '"n_sure": 128', 1))
    with pytest.raises(InputError, match=r"measures\.json of evaluate is not what this code reads"):
        run(context)
