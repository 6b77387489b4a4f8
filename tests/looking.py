"""What every page of ours must look like, asked of a real browser."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from tests.servers.browser import Browser, Page

PHONE: Final = (390, 844)
LAPTOP: Final = (1366, 768)
PAPER: Final = (718, 1000)
"""A4 at 96 dots per inch, without margins of a centimetre."""
_QUESTIONS: Final = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")


def ask(page: Page, question: str) -> Any:
    """The answer to one question of looking.js."""
    return page.evaluate(f"looking.{question}")


def look(browser: Browser, path: Path, size: tuple[int, int], **how: Any) -> Page:
    """Open a page and hold it against everything that is asked of every page of ours."""
    page = browser.open(path, *size, **how)
    page.evaluate(_QUESTIONS)
    assert page.list_problems() == []
    assert page.list_requests() == [path.resolve().as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert ask(page, "overflowing()") == []
    assert ask(page, "undrawn()") == []
    if how.get("paper"):
        return page
    levels = ask(page, "headings()")
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels)), levels
    assert ask(page, "bareTables()") == []
    assert ask(page, "nameless()") == []
    assert ask(page, "landmarks()") == {"banner": 1, "navigation": 1, "main": 1, "contentinfo": 1}
    assert ask(page, "outOfOrder()") == []
    assert ask(page, "moving()") == []
    contrasts = ask(page, "contrasts()")
    assert contrasts["text"][0] >= 4.5, contrasts
    assert contrasts["marks"] is None or contrasts["marks"][0] >= 3, contrasts
    return page
