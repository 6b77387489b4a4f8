"""The report in a browser: on a phone, a laptop and paper, light and dark, by pointer, by key, without its script."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from jobs.analyze.stage import run
from tests.analyze import made_evidence as made
from tests.analyze import made_measures
from tests.looking import LAPTOP, PAPER, PHONE, ask, look
from tests.servers.browser import NAMES, Browser, Page, find_chromium


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of hand-made findings with hostile texts in them and a judge."""
    measures = made_measures.make_measures(harmful=True, judgement=made_measures.make_judgement())
    responses = made.make_responses(judged=True)
    context = made.make_context(tmp_path_factory.mktemp("looks"), measures=measures, responses=responses)
    run(context)
    return context.files / "report.html"


@pytest.fixture(scope="module")
def page(browser: Browser, report: Path) -> Page:
    return look(browser, report, LAPTOP)


def choose(page: Page, **values: str) -> list[str]:
    """Set filters as a reader would; the prompts that are shown then, in their order."""
    for name, value in values.items():
        ask(page, f"set({json.dumps(name)}, {json.dumps(value)})")
    return [name.removeprefix("row-0000") for name in ask(page, "shownPrompts()")]


def reset(page: Page) -> None:
    page.evaluate("document.querySelector('[data-filter=reset]').click()")


def test_the_first_screen_says_what_matters(page: Page) -> None:
    for selector in ("h1 .verdict", "header table", "header dl > div:nth-child(3)"):
        box = page.evaluate(f"document.querySelector('{selector}').getBoundingClientRect().toJSON()")
        assert 0 <= box["top"] < box["bottom"] <= LAPTOP[1], selector
    assert ask(page, "scrollingTables()") == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_on_a_phone_nothing_scrolls_sideways(browser: Browser, report: Path, dark: bool) -> None:
    phone = look(browser, report, PHONE, dark=dark)
    phone.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    assert ask(phone, "scrollingTables()") == []
    assert phone.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
    background = phone.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(20, 24, 29)" if dark else "rgb(255, 255, 255)")


def test_on_paper_it_is_whole_but_for_answers_to_unsafe_prompts(browser: Browser, report: Path) -> None:
    paper = look(browser, report, PAPER, paper=True)
    assert ask(paper, "isVisible('.filters, nav, .readout')") is False
    paper.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert paper.evaluate("[...document.querySelectorAll('.prints')].every((one) => one.open)") is True
    assert ask(paper, "scrollingTables()") == []
    assert ask(paper, "isVisible('#examples details .pair')") is False
    assert len(ask(paper, "shownPrompts()")) == 8  # four of each label
    printed = paper.print_pdf()
    assert printed.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 25


def test_a_pointer_over_a_mark_shows_its_prompt(page: Page) -> None:
    wanted = ask(page, "loneliest()")
    page.move_to(wanted["x"], wanted["y"])
    assert wanted["id"] in page.evaluate("document.querySelector('figure.explored .readout').textContent")
    # The same prompt is marked in both panels.
    assert page.evaluate("document.querySelectorAll('figure.explored .ring').length") == 2


def test_the_keyboard_steps_through_the_prompts_that_moved_most(page: Page) -> None:
    page.evaluate("document.querySelectorAll('figure.explored .slider input')[1].focus()")
    page.press("ArrowRight", 39)
    told = page.evaluate("document.querySelectorAll('figure.explored .readout')[1].textContent")
    # Prompt 4 lost its refusal: 3.75 to -3.5 nats. The tuned model changed nothing else: the next is the first by id.
    assert "row-000000" in told
    page.press("ArrowLeft", 37)
    told = page.evaluate("document.querySelectorAll('figure.explored .readout')[1].textContent")
    assert "row-000004" in told
    assert "How do I thank my neighbour 4?" in told
    assert "refusal log-odds 3.75 to −3.50 nats" in told
    assert "base refuses, tuned answers" in told
    spoken = page.evaluate(
        "document.querySelectorAll('figure.explored .slider input')[1].getAttribute('aria-valuetext')"
    )
    assert spoken.startswith("unsafe, Civility & Tolerance: How do I thank my neighbour 4?")


def test_filters_find_what_they_name(page: Page) -> None:
    reset(page)
    every = choose(page)
    assert len(every) == 12
    assert every[0] == "04"
    assert choose(page, label="unsafe") == [name for name in every if int(name) % 2 == 0]
    assert choose(page, axiom="Justice & Rights") == [name for name in every if int(name) % 2 == 0 and int(name) >= 6]
    reset(page)
    assert choose(page, outcome="lost") == choose(page, outcome="flipped") == ["04"]
    assert choose(page, outcome="gained") == []
    reset(page)
    # The judge saw unsafe prompts only: tuned number / 20, base 0.9.
    assert choose(page, criterion="harmlessness", ceiling="0.3", order="worst") == ["00", "02", "04", "06"]
    assert choose(page, ceiling="", order="fell") == ["00", "02", "04", "06", "08", "10"]
    reset(page)
    assert choose(page, text="NEIGHBOUR 7") == ["07"]
    assert choose(page, text="no such words") == []
    assert page.evaluate("document.querySelector('.found').textContent") == "0 shown of 0 that fit, 12 prompts in all."
    reset(page)
    assert choose(page, order="id") == sorted(every)
    reset(page)
    assert choose(page) == every


def test_an_answer_to_an_unsafe_prompt_shows_only_on_a_click(page: Page) -> None:
    reset(page)
    hidden = "document.querySelector('article[data-id=row-000004] .pair').checkVisibility()"
    assert page.evaluate(hidden) is False
    page.evaluate("document.querySelector('article[data-id=row-000004] summary').click()")
    assert page.evaluate(hidden) is True
    page.evaluate("document.querySelector('article[data-id=row-000004] summary').click()")
    assert page.evaluate("document.querySelector('article[data-id=row-000003] .pair').checkVisibility()") is True


def test_the_first_stop_of_the_keyboard_leads_past_the_head(page: Page) -> None:
    page.evaluate("scrollTo(0, 0); document.activeElement.blur(); document.body.focus()")
    page.evaluate("document.querySelector('.skip').focus()")
    box = page.evaluate("document.querySelector('.skip').getBoundingClientRect().left")
    assert box >= 0
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_the_keyboard_goes_through_the_page_in_the_order_of_its_text(browser: Browser, report: Path) -> None:
    fresh = look(browser, report, LAPTOP)
    fresh.call("Page.bringToFront")
    stops = []
    for _ in range(40):
        fresh.press("Tab", 9)
        stops.append(fresh.evaluate("document.activeElement.outerHTML.slice(0, 60)"))
        order = "looking.last ? looking.last.compareDocumentPosition(document.activeElement) : 4"
        assert fresh.evaluate(order) & 4, stops  # DOCUMENT_POSITION_FOLLOWING
        fresh.evaluate("looking.last = document.activeElement")
        seen = "getComputedStyle(document.activeElement).outlineStyle"
        assert fresh.evaluate(seen) == "solid", stops
    assert "Skip to the summary" in stops[0]
    assert sum("<input" in stop or "<select" in stop for stop in stops) >= 2
    fresh.close()


def test_without_its_script_everything_is_there_but_the_filters(browser: Browser, report: Path) -> None:
    plain = look(browser, report, LAPTOP, script=False)
    assert len(ask(plain, "shownPrompts()")) == 12
    assert plain.evaluate("document.getElementById('filters').checkVisibility()") is False
    assert plain.evaluate("document.querySelectorAll('figure svg').length") == 6


def test_a_machine_without_a_browser_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CHROMIUM", raising=False)
    with pytest.raises(FileNotFoundError, match="apt-get install chromium") as told:
        find_chromium()
    assert NAMES[0] in str(told.value)
