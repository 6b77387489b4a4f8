"""The paired differences, on outcomes made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from jobs.compare.differences import (
    Drop,
    Outcomes,
    compare_f2,
    compare_gaps,
    compare_log_odds,
    compare_refusals,
    pair_outcomes,
    resample_f2_drop,
)
from jobs.evaluate.metric.geometry import score_geometry
from jobs.evaluate.metric.paired import newcombe_paired
from jobs.evaluate.metric.representation import average_layers

N = 40


def made(
    refused: int = N, *, shift: float = 0.0, noise: float = 0.0, seed: int = 1, missing: tuple[int, ...] = ()
) -> Outcomes:
    """N safe and N unsafe prompts; the base refuses every unsafe one and leans by 4 nats either way, give or take 1."""
    shared, own = np.random.default_rng(0), np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for number in range(2 * N):
        unsafe = number < N
        level = (4.0 if unsafe else -4.0) + shared.normal()
        for role in ("base", "tuned"):
            moved = (shift + noise * own.normal()) if role == "tuned" and unsafe else 0.0
            rows.append(
                {
                    "prompt_id": f"p{number:03d}",
                    "model_role": role,
                    "safety_label": "unsafe" if unsafe else "safe",
                    "refused": unsafe and (role == "base" or number < refused),
                    "refusal_log_odds": None if number in missing else level + moved,
                }
            )
    return pair_outcomes(rows)


def test_a_fine_tune_differs_from_itself_by_exactly_nothing():
    one = made(30, shift=-1.0, noise=0.5)
    for found in (compare_gaps(one, one), compare_log_odds(one, one)):
        assert (found.estimate.value, found.estimate.low, found.estimate.high) == (0.0, 0.0, 0.0)
        assert not found.is_told_apart
    # Newcombe's interval keeps a width: no change seen in 40 prompts is not proof of none.
    found = compare_refusals("refusal_unsafe", one, one, ())
    assert found.estimate.value == 0.0
    assert found.estimate.low is not None
    assert found.estimate.low < 0


def test_pairing_tells_apart_what_the_prompts_own_spread_would_hide():
    """Prompts spread by 1 nat, so 40 of them leave a mean uncertain by 0.3; a shift of 0.1 for each is seen."""
    found = compare_log_odds(made(), made(shift=-0.1))
    assert found.estimate.value == pytest.approx(0.1)
    assert found.is_told_apart
    gap = compare_gaps(made(), made(shift=-0.1))
    base = np.mean([roles["base"]["refusal_log_odds"] for name, roles in made().items() if name < "p040"])
    safe = np.mean([roles["base"]["refusal_log_odds"] for name, roles in made().items() if name >= "p040"])
    # 0 % lost minus 0.1 nats of the base's gap.
    assert gap.estimate.value == pytest.approx(-100 * 0.1 / (base - safe))
    assert gap.is_told_apart


def test_the_difference_of_two_f2_drops_is_resampled_in_pairs():
    # Drops of 30 and 20 %; resample by resample 9, 10 and 11 points apart, though each ranges over 20.
    first, second = Drop(30.0, np.array([19.0, 30.0, 41.0])), Drop(20.0, np.array([10.0, 20.0, 30.0]))
    found = compare_f2(first, second, 7)
    # The quantiles .025 and .975 of three values lie 5 % of a step inside the outer two.
    assert (found.name, found.unit, found.n) == ("f2_drop", "points", 7)
    assert found.estimate.model_dump() == pytest.approx({"value": 10.0, "low": 9.05, "high": 10.95})
    assert found.is_told_apart


def test_swapping_the_runs_swaps_the_sign():
    one, other = made(30, shift=-1.0, noise=0.3), made(20, shift=-0.5, noise=0.3, seed=2)
    for compare in (compare_gaps, compare_log_odds):
        there, back = compare(one, other).estimate, compare(other, one).estimate
        assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))
    rates = [compare_refusals("refusal_unsafe", *pair, ()).estimate for pair in ((one, other), (other, one))]
    # 10 of 40 unsafe prompts are refused by the first alone, 25 points.
    assert (rates[0].value, rates[1].value) == (25.0, -25.0)
    assert rates[0].low == pytest.approx(-rates[1].high)


def test_the_interval_of_a_share_is_that_of_its_four_counts():
    # Of 40 unsafe prompts 20 are refused by both, 10 by the first alone, 10 by neither.
    found = compare_refusals("refusal_unsafe", made(30), made(20), ()).estimate
    share = newcombe_paired(both=20, first_only=10, second_only=0, neither=10)
    assert (found.low, found.high) == (pytest.approx(100 * share.low), pytest.approx(100 * share.high))


def test_where_the_labels_differ_in_number_every_prompt_weighs_as_in_its_mean():
    few = {name: roles for name, roles in made(shift=-1.0, noise=0.5).items() if name >= "p030"}  # 10 unsafe, 40 safe
    found = compare_gaps(made(), few).estimate
    assert found.low < found.value < found.high
    unsafe = [roles for name, roles in few.items() if name < "p040"]
    moved = np.mean([roles["tuned"]["refusal_log_odds"] - roles["base"]["refusal_log_odds"] for roles in unsafe])
    assert -100 < 100 * moved / 8 < 0
    assert found.value == pytest.approx(100 * moved / 8, rel=0.1)  # the base's gap is 8 nats, give or take


def test_only_how_far_each_moved_from_its_own_base_counts():
    """The bases of two runs read on other machines may differ in every digit."""
    one, other = made(shift=-1.0), made(shift=-1.0)
    raised = {
        name: {role: row | {"refusal_log_odds": row["refusal_log_odds"] + 1.0} for role, row in roles.items()}
        for name, roles in other.items()
    }
    assert compare_log_odds(one, raised).estimate.value == pytest.approx(0.0, abs=1e-12)


def test_two_prompts_of_each_label_are_enough():
    few = {name: roles for name, roles in made().items() if name in ("p000", "p001", "p040", "p041")}
    assert (compare_gaps(few, few).estimate.value, compare_log_odds(few, few).estimate.value) == (0.0, 0.0)
    one = {name: roles for name, roles in few.items() if name != "p040"}
    assert (
        compare_gaps(few, one).reason == "1 safe and 2 unsafe prompts have refusal log-odds in both; expected 2 of each"
    )


def test_only_prompts_that_both_have_are_compared():
    one, other = made(missing=(0, 1, 50)), made(shift=-1.0, missing=(2,))
    assert compare_gaps(one, other).n == 2 * N - 4
    assert compare_log_odds(one, other).n == N - 3
    assert compare_refusals("over_refusal_safe", one, other, ()).n == N
    fewer = {name: roles for name, roles in other.items() if name >= "p010"}
    assert compare_refusals("refusal_unsafe", one, fewer, ()).n == N - 10


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (compare_gaps(made(missing=tuple(range(N))), made()), "40 safe and 0 unsafe prompts"),
        (compare_gaps(made(), made(), ["b"]), "no drop was judged in b"),
        (compare_log_odds(made(missing=tuple(range(N - 1))), made()), "1 unsafe prompts have"),
        (compare_refusals("refusal_unsafe", made(), made(), ["a", "b"]), "coherence was not passed by a and b"),
        (compare_refusals("refusal_unsafe", {}, {}, ()), "no unsafe prompt was answered in both"),
        (compare_f2("not reliably above 0", Drop(1.0, np.zeros(3)), 5), "not reliably above 0"),
    ],
)
def test_what_cannot_be_told_has_a_reason_and_no_number(found, reason):
    assert found.estimate.value is None
    assert reason in str(found.reason)
    assert not found.is_told_apart


def test_the_f2_drop_is_the_scores_own_and_the_order_of_the_prompts_does_not_matter():
    random = np.random.default_rng(5)
    unsafe = np.arange(80) % 2 == 1
    base = random.normal(size=(80, 6))
    base[unsafe, 0] += 5
    tuned = 0.5 * base + 1.0
    tuned[:, 0] += 0.3 * random.normal(size=80)
    topics, ids = ["a" if number < 40 else "b" for number in range(80)], [f"p{number:02d}" for number in range(80)]
    found = resample_f2_drop(base.astype(np.float32), tuned.astype(np.float32), unsafe.tolist(), topics, ids)
    assert isinstance(found, Drop)

    def f2(rows: np.ndarray) -> float:
        """Squared distance of the means less what chance adds to it, over the variance within."""
        groups = [rows[~unsafe], rows[unsafe]]
        within = sum(float(((group - group.mean(0)) ** 2).sum()) for group in groups) / (len(rows) - 2)
        distance = float(((groups[0].mean(0) - groups[1].mean(0)) ** 2).sum())
        return distance / within - sum(1 / len(group) for group in groups)

    assert found.value == pytest.approx(100 * (f2(base) - f2(tuned)) / f2(base), abs=1e-3)
    order = random.permutation(80)
    again = resample_f2_drop(
        base[order].astype(np.float32),
        tuned[order].astype(np.float32),
        unsafe[order].tolist(),
        [topics[place] for place in order],
        [ids[place] for place in order],
    )
    assert isinstance(again, Drop)
    assert again.value == found.value
    assert np.array_equal(again.cloud, found.cloud)
    small = resample_f2_drop(
        (base / 1e3).astype(np.float32), (tuned / 1e3).astype(np.float32), unsafe.tolist(), topics, ids
    )
    assert isinstance(small, Drop)
    assert small.value == pytest.approx(found.value, rel=1e-4)


def two_models(apart: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str], list[str]]:
    """Base, tuned, labels, topics and ids of 80 prompts, the labels' means so far apart in the base."""
    random, unsafe = np.random.default_rng(6), np.arange(80) % 2 == 1
    base = random.normal(size=(80, 6))
    base[unsafe, 0] += apart
    tuned = base + 0.4 * random.normal(size=(80, 6))
    ids = [f"p{number:02d}" for number in range(80)]
    return base.astype(np.float32), tuned.astype(np.float32), unsafe, ["a" if n < 40 else "b" for n in range(80)], ids


def test_the_drop_has_the_interval_of_the_runs_own_score():
    base, tuned, unsafe, topics, ids = two_models(2.2)
    found = resample_f2_drop(base, tuned, unsafe.tolist(), topics, ids)
    assert isinstance(found, Drop)
    layers = [np.stack([rows, rows], axis=1) for rows in (base, tuned)]
    score = score_geometry(*layers, unsafe, topics, ids, representation=average_layers((1,)), resamples=2000)[0]
    assert 0 < score.base.f2.value < 1
    low, high = np.quantile(found.cloud, [0.025, 0.975])
    assert [found.value, low, high] == pytest.approx(
        [score.f2_drop_pct.value, score.f2_drop_pct.low, score.f2_drop_pct.high], rel=1e-3
    )


def test_a_separation_that_may_be_nothing_has_no_drop():
    base, tuned, unsafe, topics, ids = two_models(0.0)
    groups = [base[~unsafe], base[unsafe]]
    within = sum(float(((group - group.mean(0)) ** 2).sum()) for group in groups) / 78
    # f2 itself is above 0, by chance; some of its resamples are not.
    assert float(((groups[0].mean(0) - groups[1].mean(0)) ** 2).sum()) / within - 2 / 40 > 0
    found = resample_f2_drop(base, tuned, unsafe.tolist(), topics, ids)
    assert found == "no drop in percent: the base's value of f2 is not reliably above 0"


def test_a_prompt_that_one_model_answered_is_no_pair():
    rows = [{"prompt_id": "p", "model_role": role} for role in ("base", "tuned")]
    assert pair_outcomes([*rows, {"prompt_id": "q", "model_role": "tuned"}]) == {
        "p": {"base": rows[0], "tuned": rows[1]}
    }


def test_vectors_without_a_spread_have_no_drop():
    rows = np.zeros((20, 3), dtype=np.float32)
    found = resample_f2_drop(rows, rows, [n % 2 == 1 for n in range(20)], ["a"] * 20, [f"p{n:02d}" for n in range(20)])
    assert isinstance(found, str)
