"""The page itself: it needs nothing else, keeps untrusted text text and unsafe answers folded, and stays small."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path

from jobs.analyze.stage import run
from pipeline_common.context import Context, Outputs
from tests.analyze import made_evidence as made
from tests.analyze import made_measures
from tests.analyze.report_page import FIGURES, Page, read_page


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
    plain = (context.files / "report.md").read_text(encoding="utf-8")
    assert "Both answers are left out of the report." in plain
    # There is nothing to click on in this page.
    assert "on a click" not in plain


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
    measures = made_measures.make_measures(n_safe=622, n_unsafe=622)
    context = made.make_context(tmp_path, measures=measures, responses=long)
    assert run(context).summary["report_bytes"] < 3_000_000
    page = read_page(context)
    shown = [value for tag, name, value in page.attributes if (tag, name) == ("article", "data-id")]
    assert f"{1500 - len(shown)} more prompts are in the files only." in page.text
    assert len(shown) >= 64


def test_of_too_many_prompts_to_point_at_those_that_changed_most_are_named(tmp_path: Path) -> None:
    measures = made_measures.make_measures(n_safe=760, n_unsafe=760)
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
