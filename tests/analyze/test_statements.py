"""What the report states: every number is the measured one, both formats say the same, nothing is left out."""

from __future__ import annotations

import re

import pytest

from pipeline_common.context import Context, Outputs
from tests.analyze import made_evidence as made
from tests.analyze import made_measures
from tests.analyze.report_page import Page, Tables, as_said, read_summary


def test_numbers_equal_the_measures_to_the_digit(finished: tuple[Context, Outputs, Page]) -> None:
    _, _, page = finished
    measures = made_measures.make_measures()
    expected: dict[str, float] = {}
    for score in measures.geometry:
        key = f"aqi_scores/{score.scope}/{score.name}"
        for name, estimate in (
            ("base_aqi", score.base.aqi),
            ("tuned_aqi", score.tuned.aqi),
            ("base_f2", score.base.f2),
            ("tuned_f2", score.tuned.f2),
            ("delta_aqi", score.delta_aqi),
            ("drop_pct", score.drop_pct),
            ("f2_drop_pct", score.f2_drop_pct),
        ):
            if estimate.value is not None and estimate.low is not None and estimate.high is not None:
                expected[f"{key}/{name}"] = estimate.value
                expected[f"{key}/{name}_low"] = estimate.low
                expected[f"{key}/{name}_high"] = estimate.high
        for role, indices in (("base", score.base), ("tuned", score.tuned)):
            for name in ("xbi", "chi", "r2_adj"):
                if getattr(indices, name) is not None:
                    expected[f"{key}/{role}_{name}"] = getattr(indices, name)
        expected[f"{key}/n_safe"], expected[f"{key}/n_unsafe"] = score.n_safe, score.n_unsafe
    shown = {
        name: {value for value, _ in found} for name, found in page.numbers.items() if name.startswith("aqi_scores/")
    }
    assert len(expected) > 100
    assert shown == {name: {value} for name, value in expected.items()}


def test_numbers_equal_the_rows_and_the_summary(finished: tuple[Context, Outputs, Page]) -> None:
    context, outputs, page = finished
    rows = {row["name"]: row for row in outputs.rows["evaluation_summary"]}
    signals = {signal["name"]: signal for signal in read_summary(context)["signals"]}
    compared = 0
    for name, found in page.numbers.items():
        if not name.startswith("evaluation_summary/"):
            continue
        _, signal, column = name.split("/")
        ((value, _),) = found
        assert value == rows[signal][column], name
        in_summary = {
            "base": signals[signal]["base"],
            "tuned": signals[signal]["tuned"],
            "value": signals[signal]["value"],
            "value_low": (signals[signal]["interval"] or [None, None])[0],
            "value_high": (signals[signal]["interval"] or [None, None])[1],
        }
        assert value == in_summary[column], name
        compared += 1
    # Coherence, two rates and the gap: levels, change and both ends; f2: change and ends (its levels are scores).
    assert compared == 4 * 5 + 3


def test_shown_text_is_the_rounded_value(finished: tuple[Context, Outputs, Page]) -> None:
    _, _, page = finished
    checked = 0
    for name, found in page.numbers.items():
        for value, text in found:
            if text == "< 0.001":
                assert value < 0.001
                continue
            shown = text.replace(",", "")
            share = name.split("/")[1:2] == ["coherence"] or re.search(
                r"^(coherence|rates/.*)/(base|tuned|change\w*)$", name
            )
            decimals = len(shown.partition(".")[2])
            # Half a unit of the last digit shown.
            assert float(shown) == pytest.approx(value * (100 if share else 1), abs=0.5001 * 10**-decimals), name
            checked += 1
    assert checked > 150


def test_undefined_is_a_word_and_never_a_zero(finished: tuple[Context, Outputs, Page]) -> None:
    context, _, page = finished
    markdown = (context.files / "report.md").read_text()
    row = next(text for text in markdown.splitlines() if text.startswith(r"| Duty \& Accountability"))
    assert row == r"| Duty \& Accountability | 40 + 1 |" + " undefined |" * 5
    assert "1 unsafe prompt(s): a group needs at least 2 to have a spread" in page.text
    assert not [name for name in page.numbers if "Duty" in name and not name.endswith(("n_safe", "n_unsafe"))]
    figure = (context.files / "figures" / "aqi_per_axiom.svg").read_text()
    assert "<!-- undefined -->" in figure
    assert read_summary(context)["measures"]["undefined"] == [
        {
            "scope": "axiom",
            "name": "Duty & Accountability",
            "reason": "1 unsafe prompt(s): a group needs at least 2 to have a spread",
        },
        {"scope": "layer", "name": "0", "reason": "layer 0 is the same for every prompt: nothing to separate"},
    ]


def test_a_judge_that_did_not_judge_is_said(finished: tuple[Context, Outputs, Page]) -> None:
    context, outputs, page = finished
    assert "Not measured. evaluate.judge.kind is none" in page.text
    judge = [row for row in outputs.rows["evaluation_summary"] if row["name"] == "judge"]
    assert [(row["status"], row["base"], row["value"]) for row in judge] == [("not_measured", None, None)]
    assert "<!-- not measured -->" in (context.files / "figures" / "behaviour.svg").read_text()


def test_every_degradation_is_shown_once_with_its_detail(finished: tuple[Context, Outputs, Page]) -> None:
    context, _, page = finished
    assert page.text.count(made.MASKED_KERNEL.detail) == 1
    assert "Parts of the run that worked in a lesser way than asked: 2;" in page.text
    assert [entry["name"] for entry in read_summary(context)["degradations"]] == ["no 4-bit kernel", "no judge"]


def test_provenance_is_complete(finished: tuple[Context, Outputs, Page]) -> None:
    context, _, page = finished
    for name, manifest in context.inputs.items():
        for fact in (manifest.key, manifest.digest(), name):
            assert fact in page.text
    for fact in (
        "c0ffee",
        "with uncommitted changes",
        "sha256:" + "1f" * 32,
        "2026-01-01T10:01:12",
        "72.5",
        "made-by-hand",
    ):
        assert fact in page.text
    assert "2.13.0 (environment, prepare, evaluate); 2.12.0 (train)" in page.text
    assert "python -m jobs.train --config tiny" in page.text
    assert made.OWN_IMAGE in page.text
    assert "prepare.dataset" in page.text
    assert str(context.config.runtime.output_dir) not in page.text


def test_the_two_formats_say_the_same(finished: tuple[Context, Outputs, Page]) -> None:
    context, _, page = finished
    markdown = re.sub(r"\\(.)", r"\1", (context.files / "report.md").read_text())
    words = " ".join(page.text.split())
    for sentence in [*read_summary(context)["sentences"], read_summary(context)["recommendation"]]:
        assert " ".join(sentence.split()) in words
        assert sentence in markdown
    for found in page.numbers.values():
        for _, text in found:
            assert text in markdown


def test_every_table_and_sentence_of_the_page_is_in_the_plain_text_and_the_other_way_round(
    finished: tuple[Context, Outputs, Page],
) -> None:
    context, _, page = finished
    tables = Tables()
    tables.feed((context.files / "report.html").read_text(encoding="utf-8"))
    in_html = {title: [[as_said(cell) for cell in row] for row in rows] for title, rows in tables.found}
    assert len(in_html) == len(tables.found) > 15
    markdown = (context.files / "report.md").read_text(encoding="utf-8")
    in_markdown: dict[str, list[list[str]]] = {}
    for title, block in re.findall(r"^\*\*(.+)\*\*\n\n((?:\|.*\n)+)", markdown, re.MULTILINE):
        rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in block.splitlines()]
        told = [[as_said(re.sub(r"\\(.)", r"\1", cell)) for cell in row] for row in rows]
        in_markdown[re.sub(r"\\(.)", r"\1", title)] = [told[0], *told[2:]]
    assert in_markdown == in_html
    outside = re.sub(r"(?ms)^(`{3,})text\n.*?^\1$", "", markdown)
    outside = re.sub(r"(?m)^(\||#|base |tuned \(|Figure: |---$|Run ).*$", "", outside)
    outside = re.sub(r"(?m)^\*\*([^*]+\.\*\* ?|[^*]+\*\*$)", "", outside)
    words = as_said(page.text)
    sentences = [re.sub(r"\\(.)|\*\*", r"\1", line.removeprefix("- ")) for line in outside.splitlines() if line.strip()]
    assert len(sentences) > 40
    alt = {as_said(value) for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")}
    for sentence in sentences:
        said = as_said(sentence)
        told = said in words or any(said.endswith(one) and said.removesuffix(one).strip() in words for one in alt)
        assert told, said
