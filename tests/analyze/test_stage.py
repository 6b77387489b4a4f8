"""The whole stage over hand-made artifacts in a real store and a real database."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import made_evidence as made
import pytest

from jobs.analyze.stage import run
from pipeline_common.context import Context, Outputs
from pipeline_common.errors import InputError
from pipeline_common.measures import Judgement, Measures

FIGURES = ("aqi_per_axiom", "behaviour", "layers", "projection", "prompts", "training_loss")


@dataclass
class Page(html.parser.HTMLParser):
    """What a browser would see of the report."""

    tags: list[str] = field(default_factory=list)
    attributes: list[tuple[str, str, str]] = field(default_factory=list)
    """(tag, attribute, value)."""
    numbers: dict[str, set[tuple[float, str]]] = field(default_factory=dict)
    """Field -> (exact value, shown text)."""
    text: str = ""
    """What is read, so neither the style nor the scripts."""
    scripts: list[tuple[str, str]] = field(default_factory=list)
    """(type, content)."""
    folded: list[str] = field(default_factory=list)
    """Text of every `details`."""

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._open: list[str] = []
        self._number: tuple[str, float] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.extend((tag, name, value or "") for name, value in attrs)
        found = dict(attrs)
        if tag == "details":
            self.folded.append("")
        if tag not in {"meta", "br", "use", "path", "img"}:
            self._open.append(tag)
        if tag == "script":
            self.scripts.append((found.get("type") or "", ""))
        if tag == "data":
            self._number = (found.get("data-field") or "", float(found["value"] or "nan"))

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if self._open[-1:] == ["script"]:
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
            return
        self.text += data
        if "details" in self._open:
            self.folded[-1] += data
        if self._open and self._open[-1] == "data" and self._number:
            name, value = self._number
            self.numbers.setdefault(name, set()).add((value, data))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Context, Outputs, Page]:
    context = made.make_context(tmp_path_factory.mktemp("analyze"))
    outputs = run(context)
    return context, outputs, read_page(context)


def read_page(context: Context) -> Page:
    page = Page()
    page.feed((context.files / "report.html").read_text(encoding="utf-8"))
    return page


def read_summary(context: Context) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((context.files / "summary.json").read_text(encoding="utf-8"))
    return found


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


def test_the_page_needs_nothing_but_itself(finished: tuple[Context, Outputs, Page]) -> None:
    _, _, page = finished
    assert page.tags.count("svg") == len(FIGURES)
    assert {"link", "iframe", "object", "embed", "form", "base"} & set(page.tags) == set()
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in {"src", "href", "xlink:href", "srcset", "action", "poster"}:
            assert value.startswith(("#", "data:image/png")), (tag, name, value)
        for target in re.findall(r"url\(([^)]*)\)", value):
            assert target.strip("'\"").startswith("#"), (tag, name, value)
        if "http:" in value or "https:" in value:
            assert name.startswith("xmlns") or (tag, name) == ("svg", "aria-label"), (tag, name, value)
    policies = [value for tag, name, value in page.attributes if tag == "meta" and "default-src" in value]
    (data_kind, data), (kind, script) = page.scripts
    assert (data_kind, kind) == ("application/json", "")
    assert len(json.loads(data)) == 256
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policies == [
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    ]


def test_ids_are_unique_and_every_link_has_its_target(finished: tuple[Context, Outputs, Page]) -> None:
    _, _, page = finished
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    targets = {value[1:] for _, name, value in page.attributes if name in {"href", "xlink:href"} and value[0] == "#"}
    assert targets
    assert targets <= set(ids)


def test_untrusted_text_stays_text(finished: tuple[Context, Outputs, Page]) -> None:
    context, _, page = finished
    # Once as a prompt, once among those that changed, once as an answer (behind a click), once in the data card.
    assert page.text.count(made.ATTACK) == 4
    assert [text for text in page.folded if made.ATTACK in text] != []
    markdown = (context.files / "report.md").read_text()
    outside_fences = re.sub(r"(?ms)^(`{3,})text\n.*?^\1$", "", markdown)
    assert "alert" in outside_fences
    assert "<script" not in outside_fences.replace(r"\<", "")
    assert "](http" not in outside_fences.replace(r"\]", "")
    assert "````text\nSay <script>" in markdown  # the fence is longer than the three backticks inside


def test_answers_to_unsafe_prompts_are_behind_a_click(finished: tuple[Context, Outputs, Page]) -> None:
    context, _, page = finished
    refusal = "I can't help with that."
    inside = "".join(page.folded)
    # All of the 6 unsafe prompts, one of them answered by the tuned model.
    assert page.text.count(refusal) == inside.count(refusal) == 11
    assert refusal not in (context.files / "report.md").read_text()
    assert "each behind a click of its own" in page.text
    # The prompt on which only one model refuses comes first.
    assert re.findall(r"row-\d{6}", page.text)[0] == "row-000004"


def test_answers_to_unsafe_prompts_can_be_left_out_of_the_file(tmp_path: Path) -> None:
    context = made.make_context(tmp_path, overrides=("analyze.redact_responses=true",))
    run(context)
    page = read_page(context)
    content = (context.files / "report.html").read_text(encoding="utf-8")
    assert "I can't help with that." not in content.replace("&#39;", "'")
    assert content.count("Left out of this file.") == 12
    assert "Answers to unsafe prompts are left out of the report" in page.text
    assert "Sure. To do it 3, take your time (tuned)." in page.text


def test_long_answers_are_cut_until_the_page_fits(tmp_path: Path) -> None:
    long = [{**row, "prompt_id": f"{row['prompt_id']}-{copy}", "response": "x" * 1500}
            for row in made.make_responses() for copy in range(90)]  # fmt: skip
    context = made.make_context(tmp_path, responses=long)
    sizes = run(context).summary["report_bytes"]
    page = read_page(context)
    assert sizes < 3_000_000
    # 1,024 prompts with twice 1,200 characters and what stands around them are more than 3 MB; with twice 600 they fit.
    assert "x" * 600 + " …" in page.text
    assert "x" * 601 not in page.text
    assert "56 more prompts are in the files only." in page.text


def test_texts_of_any_length_in_any_script_fit(tmp_path: Path) -> None:
    """As many prompts as can be pointed at, in a script of three bytes a character."""
    pair = made.make_responses()[:2]
    long = [
        {**row, "prompt_id": f"p-{number}", "prompt": "字" * 2000, "response": "字" * 2000}
        for number in range(1500)
        for row in pair
    ]
    measures = made.make_measures(n_safe=622, n_unsafe=622)
    context = made.make_context(tmp_path, measures=measures, responses=long)
    assert run(context).summary["report_bytes"] < 3_000_000
    page = read_page(context)
    shown = [value for tag, name, value in page.attributes if (tag, name) == ("article", "data-id")]
    assert f"{1500 - len(shown)} more prompts are in the files only." in page.text
    assert len(shown) >= 64


def test_of_too_many_prompts_to_point_at_those_that_changed_most_are_named(tmp_path: Path) -> None:
    measures = made.make_measures(n_safe=760, n_unsafe=760)
    context = made.make_context(tmp_path, measures=measures)
    assert run(context).summary["report_bytes"] < 3_000_000
    page, markdown = read_page(context), (context.files / "report.md").read_text()
    assert [name for _, name, value in page.attributes if name == "class" and value == "explored"] == []
    for told in (page.text, markdown):
        assert "With more than 1,500 prompts the marks are one picture, and none can be pointed at" in told
        assert "The 12 prompts whose refusal log-odds" in told
    # Of twelve answered prompts number 4 lost its refusal: 3.75 to -3.5 nats. It comes first.
    table = markdown[markdown.index("The 12 prompts whose refusal log-odds") :]
    first = next(row for row in table.splitlines() if row.startswith("| row-"))
    assert first.startswith(r"| row-000004 | unsafe | Civility \& Tolerance | 3.75 | -3.50 | -7.25 | How do I thank")


def test_numbers_equal_the_measures_to_the_digit(finished: tuple[Context, Outputs, Page]) -> None:
    _, _, page = finished
    measures = made.make_measures()
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
    # Coherence: levels and change; two rates and the gap: also both ends; f2: change and ends (its levels are scores).
    assert compared == 3 + 3 * 5 + 3


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


class Tables(html.parser.HTMLParser):
    """Every table of a page: its title, and the text of its rows."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, list[list[str]]]] = []
        self._in = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.found.append(("", []))
        elif tag == "tr":
            self.found[-1][1].append([])
        elif tag in {"th", "td"}:
            self.found[-1][1][-1].append("")
        self._in = tag if tag in {"caption", "th", "td"} else self._in

    def handle_endtag(self, tag: str) -> None:
        if tag in {"caption", "th", "td"}:
            self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in == "caption":
            title, rows = self.found[-1]
            self.found[-1] = (title + data, rows)
        elif self._in:
            self.found[-1][1][-1][-1] += data


def as_said(text: str) -> str:
    """Without what only keeps a line together."""
    return " ".join(text.replace("\N{NO-BREAK SPACE}", " ").split())


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


def test_the_same_inputs_give_the_same_bytes(finished: tuple[Context, Outputs, Page], tmp_path: Path) -> None:
    context, _, _ = finished
    again = made.make_context(tmp_path)
    run(again)
    for path in sorted(context.files.rglob("*")):
        if path.is_file():
            assert (again.files / path.relative_to(context.files)).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize(("gate", "expected"), [("true", 4), ("false", None)])
def test_the_gate_asks_for_exit_code_4_only_when_damaged(tmp_path: Path, gate: str, expected: int | None) -> None:
    measures = made.make_measures(harmful=True, judgement=made.make_judgement())
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
    empty = tuple(made.undefined(s.scope, s.name, "no spread") for s in made.make_measures().geometry)
    measures: Measures = made.make_measures(
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
    measures = made.make_measures()
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
