"""How numbers are written in the report: one place, so that the same number looks the same everywhere.

A `Number` carries the exact value beside its rounded text and the name of the field it came from; the HTML keeps all
three, so every printed number can be compared with `summary.json` and the database.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline_common.measures import Estimate

UNDEFINED = "undefined"
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Number:
    """A number as it is shown, with the value it stands for."""

    text: str
    value: float | int
    field: str = ""
    """`table/key.../column`, as in the database; empty for numbers that no table holds."""


@dataclass(frozen=True)
class Interval:
    """The two ends of a 95 % interval, shown as one piece that does not break."""

    low: Number
    high: Number

    @property
    def text(self) -> str:
        """In brackets."""
        return f"[{self.low.text}, {self.high.text}]"


@dataclass(frozen=True)
class Form:
    """How a kind of number is written, and the unit behind it."""

    write: Callable[[float], str]
    unit: str = ""


Part = str | Number | Interval
Line = tuple[Part, ...]
"""Text with numbers in it."""


def write_significant(value: float) -> str:
    """Three significant digits without an exponent where that stays short: 1,380 / 142 / 11.3 / 0.0042."""
    size = abs(value)
    if size == 0:
        return "0"
    for least, places in ((100.0, ",.0f"), (10.0, ".1f"), (1.0, ".2f"), (0.1, ".3f"), (0.001, ".4f")):
        if size >= least:
            return f"{value:{places}}"
    return f"{value:.1e}"


def write_probability(value: float) -> str:
    """A p value."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _fixed(places: int, scale: float = 1.0, *, sign: bool = False) -> Callable[[float], str]:
    """So many decimals of `scale` x value; a rounded zero has no minus."""

    def write(value: float) -> str:
        text = f"{scale * value:.{places}f}"
        if not text.strip("-0."):
            text = text.removeprefix("-")
        return f"+{text}" if sign and not text.startswith("-") else text

    return write


def _signed(value: float) -> str:
    text = write_significant(value)
    return text if value < 0 else f"+{text}"


SIGNIFICANT = Form(write_significant)
SIGNED = Form(_signed)
PERCENT = Form(_fixed(1), "\N{NO-BREAK SPACE}%")
"""Of the base's value."""
RATE = Form(_fixed(1, 100), "\N{NO-BREAK SPACE}%")
"""A share in [0, 1]."""
POINTS = Form(_fixed(1, sign=True), "\N{NO-BREAK SPACE}points")
"""A difference of two percentages."""
RATE_POINTS = Form(_fixed(1, 100, sign=True), "\N{NO-BREAK SPACE}points")
"""A difference of two shares in [0, 1]."""
TWO_DIGITS = Form(_fixed(2))
"""A score in [0, 1], or nats."""
SIGNED_TWO_DIGITS = Form(_fixed(2, sign=True))
PROBABILITY = Form(write_probability)
COUNT = Form(lambda value: f"{value:,.0f}")


def number(value: float | None, form: Form, field: str = "", absent: str = UNDEFINED) -> Line:
    """One number with its unit, or the word for its absence."""
    return (absent,) if value is None else line(Number(form.write(value), value, field), form.unit)


def estimate(found: Estimate, form: Form, field: str = "", absent: str = UNDEFINED) -> Line:
    """A value with its 95 % interval and its unit: 12.3 [10.1, 14.5] %."""
    return with_interval(found.value, found.low, found.high, form, field, absent)


def with_interval(
    value: float | None, low: float | None, high: float | None, form: Form, field: str = "", absent: str = UNDEFINED
) -> Line:
    """The same from three numbers; no brackets where there is no interval."""
    if value is None or low is None or high is None:
        return number(value, form, field, absent)
    ends = [
        Number(form.write(end), end, f"{field}_{side}" if field else "") for end, side in ((low, "low"), (high, "high"))
    ]
    return line(Number(form.write(value), value, field), " ", Interval(ends[0], ends[1]), form.unit)


def line(*parts: Part | Line) -> Line:
    """Join texts, numbers and lines; empty texts fall away."""
    joined: list[Part] = []
    for part in parts:
        joined.extend(part if isinstance(part, tuple) else (part,))
    return tuple(part for part in joined if part != "")


def plain(shown: Line) -> str:
    """A line as text."""
    return "".join(part if isinstance(part, str) else part.text for part in shown)
