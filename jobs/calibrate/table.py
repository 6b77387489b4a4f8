"""The calibration in words and numbers, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from jobs.calibrate.cells import KIND_SETTINGS
from jobs.calibrate.tallies import TOOK_SHARE, Calibration, KindTally, Rate, Spread
from pipeline_common.samples.planted import KINDS

_SIGNAL_TITLES: Final = {
    "refusal_unsafe": "refusals",
    "over_refusal_safe": "over-refusal",
    "refusal_gap": "gap",
    "geometry": "geometry",
    "coherence": "coherence",
    "power": "power",
}


def write_table(calibration: Calibration, command: str) -> str:
    """The whole page: verdicts by kind, false alarms, which signal caught what, sizes of the changes.

    Args:
        calibration: the counts.
        command: what made them.
    """
    return "\n".join(_lines(calibration, command)) + "\n"


def _lines(calibration: Calibration, command: str) -> Iterator[str]:
    yield "# Calibration of the verdict"
    yield ""
    runs = sum(kind.runs for kind in calibration.kinds)
    yield (
        f"{runs} fine-tunes of the embedded model (base seeds {_listed(calibration.bases)}; fine-tune seeds "
        f"{_listed(calibration.seeds)}), made with `{command}`. Intervals are exact binomial ones, 95 %."
    )
    if calibration.codes > 1:
        yield ""
        yield f"**The results come from {calibration.codes} versions of the code.**"
    yield ""
    yield f'False alarms ("damaged" on harmless rows): {format_rate(calibration.false_alarms)}.'
    yield f"Inconclusive on harmless rows: {format_rate(calibration.harmless_inconclusive)}."
    yield ""
    yield (
        f"*Took*: of the prompts that the damage aims at and the base treats well, at least {100 * TOOK_SHARE:.0f} % "
        "have *turned*: unsafe ones are no longer refused, or safe ones are (compared letter by letter with the "
        "refusals of the sample world; no signal of the verdict is asked)."
    )
    stronger = [name for name in KIND_SETTINGS if any(kind.kind.name == name for kind in calibration.kinds)]
    for name in stronger:
        yield ""
        yield f"Trained more strongly than the others ({', '.join(KIND_SETTINGS[name])}): {KINDS[name].title}."
    yield ""
    yield "| rows | fine-tunes | took | damaged | 95 % | damaged where it took | inconclusive | no damage found |"
    yield "| --- | ---: | ---: | ---: | --- | ---: | ---: | ---: |"
    for kind in calibration.kinds:
        clear = kind.runs - kind.found.count - kind.inconclusive.count
        where_took = "-" if kind.found_where_took is None else _fraction(kind.found_where_took)
        yield (
            f"| {_title(kind)} | {kind.runs} | {'-' if kind.took is None else kind.took} | {kind.found.count} "
            f"| {_interval(kind.found)} | {where_took} | {kind.inconclusive.count} | {clear} |"
        )
    yield ""
    yield "Which signal caught what: fine-tunes in which it failed, and in brackets those in which it at least warned."
    yield ""
    yield f"| rows | {' | '.join(_SIGNAL_TITLES.values())} |"
    yield f"| --- |{' ---: |' * len(_SIGNAL_TITLES)}"
    for kind in calibration.kinds:
        cells = (f"{kind.failed[name].count} ({kind.alarmed[name].count})" for name in _SIGNAL_TITLES)
        yield f"| {_title(kind)} | {' | '.join(cells)} |"
    yield ""
    yield "Size of the changes: median (smallest to largest)."
    yield ""
    columns = ("turned, %", "planted openings, %", "refusals of unsafe prompts, points", "gap drop, %", "f2 drop, %")
    yield f"| rows | {' | '.join(columns)} |"
    yield f"| --- |{' --- |' * len(columns)}"
    for kind in calibration.kinds:
        sizes = (kind.refusal_change, kind.gap_drop_pct, kind.f2_drop_pct)
        shares = (_format_spread(share, 100) for share in (kind.turned_share, kind.taught_share))
        numbers = (*shares, *(_format_spread(size) for size in sizes))
        yield f"| {_title(kind)} | {' | '.join(numbers)} |"


def format_rate(rate: Rate) -> str:
    """As in "1 of 20 = 5.0 % (0.1 to 24.9 %)"."""
    if rate.value is None:
        return "none was run"
    return f"{_fraction(rate)} = {100 * rate.value:.1f} % ({_interval(rate)} %)"


def _fraction(rate: Rate) -> str:
    return f"{rate.count} of {rate.n}"


def _interval(rate: Rate) -> str:
    if rate.interval is None:
        return "-"
    low, high = rate.interval
    return f"{100 * low:.1f} to {100 * high:.1f}"


def _format_spread(spread: Spread | None, scale: float = 1.0) -> str:
    if spread is None:
        return "-"
    # Whole numbers, so that nothing is "-0".
    low, median, high = (round(scale * value) for value in (spread.low, spread.median, spread.high))
    return f"{median} ({low} to {high})"


def _title(kind: KindTally) -> str:
    return kind.kind.title + (" *(harmless)*" if kind.kind.aim is None else "")


def _listed(numbers: Sequence[int]) -> str:
    """Runs of numbers as ranges: 1, 2, 3, 7 -> "1-3, 7"."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)
