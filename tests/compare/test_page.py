"""The comparison as a page, as text, as JSON and as figures."""

from __future__ import annotations

import html.parser
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import sqlalchemy as sa

from jobs.compare.comparison import Comparison
from jobs.compare.report import write_comparison
from pipeline_common.tables import TABLES
from tests.compare.three_runs import ATTACK
from tests.looking import LAPTOP, PAPER, PHONE, ask, look
from tests.servers.browser import Browser


class Page(html.parser.HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.numbers: dict[str, float] = {}
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.extend((tag, name, value or "") for name, value in attrs)
        found = dict(attrs)
        if tag == "data" and found.get("data-field"):
            self.numbers[str(found["data-field"])] = float(str(found["value"]))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    page = Page()
    page.feed((folder / "comparison.html").read_text(encoding="utf-8"))
    return page


def test_the_page_is_self_contained_and_escapes_everything(folder, page):
    assert "script" not in page.tags
    asked = [value for _, name, value in page.attributes if name in {"src", "href", "xlink:href"}]
    assert asked
    assert all(value.startswith("#") for value in asked)
    assert page.tags.count("svg") == 2
    assert ATTACK in page.text
    identifiers = [value for _, name, value in page.attributes if name == "id"]
    assert len(identifiers) == len(set(identifiers))
    assert (folder / "comparison.html").stat().st_size < 1_000_000


def test_it_looks_right_on_a_phone_a_laptop_and_paper(browser: Browser, folder: Path) -> None:
    for size, how in ((PHONE, {}), (LAPTOP, {}), (LAPTOP, {"dark": True}), (PAPER, {"paper": True})):
        shown = look(browser, folder / "comparison.html", size, **how)
        assert ask(shown, "scrollingTables()") == []
        shown.close()


def test_numbers_on_the_page_equal_the_database(page, place):
    """Drops of all three runs, with their intervals, to the last digit."""
    assert len(page.numbers) == 3 * 2 * 3
    for name, value in page.numbers.items():
        run_id, table, *key, column = name.split("/")
        row = TABLES[table]
        query = sa.select(row).where(row.c.run_id == run_id)
        parts = (row.c.name == key[0],) if table == "evaluation_summary" else (row.c.scope == key[0],)
        stored = place.database.select(query.where(*parts))
        assert [one[column] for one in stored] == [value], name


def test_the_text_says_the_same_and_the_json_reads_back(folder, comparison, page):
    assert Comparison.model_validate_json((folder / "comparison.json").read_bytes()) == comparison
    text = (folder / "comparison.md").read_text(encoding="utf-8")
    assert "<script>" not in text
    plain = re.sub(r"\\(.)", r"\1", text)
    for run in comparison.runs:
        assert f"| {run.rank}. {run.run_id} | {run.verdict}" in plain
        assert run.headline in plain
        assert run.headline in page.text.replace("\N{NO-BREAK SPACE}", " ")
    assert "2. slipped is told from kept by: drop of the refusal gap; drop of f2; move of the" in plain
    for name in ("drops", "refusals"):
        ET.fromstring((folder / "figures" / f"{name}.svg").read_text(encoding="utf-8"))
        assert (folder / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_comparison_gives_the_same_bytes(comparison, folder, tmp_path):
    write_comparison(comparison, tmp_path)
    for name in ("comparison.html", "comparison.md", "comparison.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
