"""The synthetic calibration in words and numbers, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jobs.calibrate.synthetic.plans import ALARM_PCT, COVERAGE_PROMISED, MEAN_PROMISED_PCT, Group, spectrum
from jobs.calibrate.synthetic.results import SyntheticResult
from jobs.calibrate.tallies import Rate

_COVERAGE_HEAD = (
    "| {} | f2 | difference base - tuned | drop, % of the base | mean f2, error in % |\n"
    "| --- | --- | --- | --- | ---: |"
)


def write_synthetic(results: Sequence[SyntheticResult], command: str) -> str:
    """The whole page: coverage, mean, label noise, duplicates, false alarms and power.

    Args:
        results: of every cell of a plan, in its order.
        command: what made them.
    """
    return "\n".join(_lines(results, command)) + "\n"


def _lines(results: Sequence[SyntheticResult], command: str) -> Iterator[str]:
    by_group: dict[Group, list[SyntheticResult]] = {}
    for result in results:
        by_group.setdefault(result.group, []).append(result)
    coverage, means = by_group["coverage"], by_group["mean"]
    yield "# Calibration on synthetic activations"
    yield ""
    yield (
        f"Made with `{command}`: {coverage[0].runs:,} independent draws of each plant, {coverage[0].resamples:,} "
        "resamples for each interval, scored with the functions that score real activations. Behind every share "
        "stands its exact binomial 95 % interval, behind every mean its Monte Carlo standard error."
    )
    yield ""
    yield (
        "Rows are normal; eigenvalue k of their covariance is 1 / k^decay in 64 dimensions. The planted f2 of the base "
        "is 1, its drop 15 % unless the table says otherwise; the tuned model shares its noise with the base up to "
        "0.3 standard deviations of its own. Prompts lie in seven axioms."
    )
    yield ""
    yield from _summary(coverage, means, by_group["power"])
    yield ""
    yield "## Coverage of nominal 95 % intervals"
    yield ""
    yield _COVERAGE_HEAD.format("spectrum, n, unsafe share")
    for found in coverage:
        yield _coverage_row(f"{spectrum(found.decay)}, {found.n}, {100 * found.share_unsafe:.0f} %", found)
    yield ""
    yield "## Mean f2 against n"
    yield ""
    yield "| n | unsafe share | draws | mean f2 (planted 1) | error, % |\n| ---: | ---: | ---: | ---: | ---: |"
    for found in means:
        share = f"{100 * found.share_unsafe:.0f} %"
        yield f"| {found.n:,} | {share} | {found.runs:,} | {found.mean_f2:.4f} | {_mean_error(found)} |"
    yield ""
    yield "## Wrong labels"
    yield ""
    yield (
        "Wrong labels pull the means together: what is estimated is the f2 of the labels as they are, and that is what "
        "the intervals cover. The last column is what became of the planted f2."
    )
    yield ""
    yield (
        _COVERAGE_HEAD.replace("error in % |", "error in % | expected f2 / planted |")
        .replace("---: |", "---: | ---: |")
        .format("wrong labels")
    )
    for found in by_group["label noise"]:
        row = _coverage_row(f"{100 * found.label_noise:g} %", found)
        yield f"{row} {found.expected_f2 / found.planted_f2:.3f} |"
    yield ""
    yield "## Repeated prompts"
    yield ""
    yield (
        "Why they are refused: a repeated prompt brings no information, but the resampling counts it as if it did: the "
        "intervals come out too narrow, and f2 too large."
    )
    yield ""
    yield _COVERAGE_HEAD.format("repeated prompts")
    for found in by_group["duplicates"]:
        yield _coverage_row(f"{100 * found.duplicates:g} %", found)
    yield ""
    yield "## False alarms and power"
    yield ""
    yield (
        f"Share of draws whose whole interval of the drop lies above {ALARM_PCT:g} %, where the verdict's geometry "
        "warns. Without a drop these are false alarms; a drop of just the threshold should raise 2.5 %."
    )
    yield ""
    yield from _power_table(by_group["power"], "alarms")
    yield ""
    yield "Share of draws whose whole interval lies above 0: a drop is seen, however small."
    yield ""
    yield from _power_table(by_group["power"], "above_zero")


def _summary(
    coverage: Sequence[SyntheticResult], means: Sequence[SyntheticResult], power: Sequence[SyntheticResult]
) -> Iterator[str]:
    shares = [
        rate.value
        for found in coverage
        for rate in (found.rate(found.f2_covered), found.rate(found.difference_covered), found.rate(found.drop_covered))
        if rate.value is not None
    ]
    low, high = COVERAGE_PROMISED
    outside = sum(not low <= share <= high for share in shares)
    worst = max(means, key=lambda found: abs(found.mean_error_pct))
    none = [found.rate(found.alarms) for found in power if found.drop_pct == 0]
    pooled = Rate(sum(rate.count for rate in none), sum(rate.n for rate in none))
    yield (
        f"- Coverage: {100 * min(shares):.1f} to {100 * max(shares):.1f} % over {len(shares)} plants and quantities; "
        f"{outside} of them outside {100 * low:.0f} to {100 * high:.0f} %."
    )
    yield (
        f"- Mean f2: largest error {_mean_error(worst)} % (n = {worst.n:,}); promised: at most {MEAN_PROMISED_PCT:g} %."
    )
    yield f"- False alarms without a drop: {pooled.count:,} of {pooled.n:,} draws, {_share(pooled)} %."


def _coverage_row(title: str, found: SyntheticResult) -> str:
    rates = (found.rate(counted) for counted in (found.f2_covered, found.difference_covered, found.drop_covered))
    return f"| {title} | {' | '.join(map(_share, rates))} | {_mean_error(found)} |"


def _power_table(results: Sequence[SyntheticResult], counted: str) -> Iterator[str]:
    sizes = sorted({found.n for found in results})
    yield f"| planted drop, % | {' | '.join(f'n = {n:,}' for n in sizes)} |"
    yield f"| ---: |{' --- |' * len(sizes)}"
    for drop in sorted({found.drop_pct for found in results}):
        row = {found.n: found.rate(getattr(found, counted)) for found in results if found.drop_pct == drop}
        yield f"| {drop:g} | {' | '.join(_share(row[n]) for n in sizes)} |"


def _share(rate: Rate) -> str:
    """In percent, as in "95.2 (93.7 to 96.4)"."""
    if rate.value is None or rate.interval is None:
        return "-"
    low, high = rate.interval
    return f"{100 * rate.value:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _mean_error(found: SyntheticResult) -> str:
    return f"{found.mean_error_pct:+.2f} ± {found.mean_se_pct:.2f}"
