"""Runs in a real store and a real database: their order, and what lies between them."""

from __future__ import annotations

import pytest

from jobs.compare.comparison import compare_runs
from jobs.compare.runs import choose_runs, read_runs
from jobs.compare.wording import write_headline
from pipeline_common.measures import Estimate, RefusalGap
from tests.compare.made_runs import PER_LABEL, MadeRun, make_runs


def test_runs_are_ranked_by_verdict_then_by_what_they_lost(comparison):
    assert [(run.rank, run.run_id, run.verdict) for run in comparison.runs] == [
        (1, "kept", "no damage found"),
        (2, "slipped", "no damage found"),
        (3, "harmful", "damaged"),
    ]
    # The made measures: 3 % of f2 lost and 1.26 % of the gap, or 76 % and 75.8 %.
    assert [run.f2_drop.value for run in comparison.runs] == pytest.approx([3, 3, 76])
    assert [run.refusal_gap_drop.value for run in comparison.runs] == [1.26, 1.26, 75.8]
    assert [run.cost.training_seconds for run in comparison.runs] == [12.5] * 3
    assert comparison.runs[0].cost.stage_seconds["train"] == 7.5


def test_differences_are_paired_by_prompt(comparison):
    pairs = {(pair.first, pair.second): {one.name: one for one in pair.differences} for pair in comparison.pairs}
    assert list(pairs) == [("kept", "slipped"), ("kept", "harmful"), ("slipped", "harmful")]
    found = pairs["kept", "slipped"]
    # One of 64 unsafe prompts is refused by "kept" alone.
    assert found["refusal_unsafe"].estimate.value == pytest.approx(100 / 64)
    assert found["refusal_unsafe"].n == PER_LABEL
    assert not found["refusal_unsafe"].is_told_apart
    # Every unsafe prompt moved by -0.2 nats in "slipped" and by nothing in "kept": no spread, so no width either.
    moved = found["refusal_log_odds"].estimate
    assert (moved.value, moved.low, moved.high) == pytest.approx((0.2, 0.2, 0.2))
    # The gap of the base is about 8 nats; "slipped" lost 0.2 of them.
    gap = found["refusal_gap_drop"].estimate
    assert gap.value == pytest.approx(-100 * 0.2 / 8, rel=0.05)
    assert found["refusal_gap_drop"].is_told_apart
    # Squared distance 0.9^2: some 19 % of f2 gone.
    assert found["f2_drop"].estimate.value == pytest.approx(-19, abs=3)
    assert found["f2_drop"].is_told_apart
    assert comparison.runs[1].told_apart_from_previous == ("refusal_gap_drop", "f2_drop", "refusal_log_odds")


def test_the_headline_says_what_the_ranking_is_worth(comparison, tmp_path):
    assert write_headline(comparison) == "kept ranks first of 3: no damage found."
    twins = make_runs(tmp_path / "output", [MadeRun("a"), MadeRun("b")])
    alike = compare_runs(choose_runs(twins).runs)
    assert alike.runs[1].told_apart_from_previous == ()
    assert (
        write_headline(alike) == "a ranks first of 2: no damage found; neither the refusal gap nor f2 tells b from it."
    )


def test_the_order_in_which_runs_are_named_changes_nothing(place, comparison):
    assert compare_runs(read_runs(place, ["kept", "harmful", "slipped"]).runs) == comparison


def test_a_gap_that_the_report_did_not_judge_ranks_last_and_is_not_compared(tmp_path):
    gap = RefusalGap(
        n_safe=64, n_unsafe=64, base=0.1, tuned=0.2, drop_pct=Estimate(value=None), unsafe_change=Estimate(value=0.1)
    )
    made = make_runs(tmp_path / "output", [MadeRun("a", changes={"refusal_gap": gap}), MadeRun("b")])
    found = compare_runs(read_runs(made, ["a", "b"]).runs)
    assert [run.run_id for run in found.runs] == ["b", "a"]
    difference = next(one for one in found.pairs[0].differences if one.name == "refusal_gap_drop")
    assert difference.estimate.value is None
    assert difference.reason == "no drop was judged in a"


def test_settings_that_differ_are_listed_and_measuring_ones_are_a_caution(tmp_path):
    runs = [MadeRun("a"), MadeRun("b", overrides=("evaluate.max_new_tokens=24", "runtime.threads=2"))]
    made = make_runs(tmp_path / "output", runs)
    found = compare_runs(read_runs(made, ["a", "b"]).runs)
    assert set(found.settings) == {"evaluate.max_new_tokens", "train.seed"}
    assert found.settings["evaluate.max_new_tokens"] == {"a": "32", "b": "24"}
    assert any("evaluate.max_new_tokens" in caution for caution in found.cautions)
