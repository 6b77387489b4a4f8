from __future__ import annotations

import pytest

from jobs.evaluate.openings import OpenedAnswer, OpeningSet, build_tree, choose_openings, cut_opening

ME, CAN, NOT, SORRY, BUT, DO, SURE, TO, END = range(1, 10)


def said(role, opening, *, unsafe=True, refused=True, times=1):
    return [OpenedAnswer(role, opening, unsafe, refused)] * times


HELP = said("base", (SURE, TO, DO), unsafe=False, refused=False, times=20)


def test_an_opening_is_cut_and_keeps_its_end():
    assert cut_opening(range(20), None) == tuple(range(8))
    assert cut_opening([ME, CAN], END) == (ME, CAN, END)
    assert cut_opening(range(8), END) == tuple(range(8))


def test_the_shortest_beginning_that_tells():
    found = choose_openings(
        [*said("base", (ME, CAN, NOT, DO), times=6), *said("base", (SORRY, BUT, ME), times=4), *HELP]
    )
    assert isinstance(found, OpeningSet)
    assert found.openings == ((ME, CAN), (SORRY, BUT))
    assert found.covered == {"base": 1.0}


def test_a_beginning_shared_with_compliance_is_extended():
    # The tuned model obeys in the words in which the base refuses: "I can".
    obeys = said("tuned", (ME, CAN, DO, TO), refused=False, times=10)
    found = choose_openings([*said("base", (ME, CAN, NOT, DO), times=10), *obeys, *HELP])
    assert isinstance(found, OpeningSet)
    assert found.openings == ((ME, CAN, NOT),)
    assert found.covered == {"base": 1.0, "tuned": None}


def test_what_never_tells_is_left_out():
    answers = [*said("base", (ME, CAN), times=10), *said("tuned", (ME, CAN), refused=False, times=10)]
    assert "no opening is typical" in str(choose_openings(answers))
    found = choose_openings([*answers, *said("base", (SORRY, BUT), times=10)])
    assert isinstance(found, OpeningSet)
    assert found.openings == ((SORRY, BUT),)
    assert found.covered["base"] == 0.5


def test_both_models_and_the_probable_ones_give_openings():
    tuned = said("tuned", (NOT, DO, ME), times=5)
    found = choose_openings([*said("base", (ME, CAN, NOT), times=5), *tuned, *HELP], [(SORRY, BUT, ME)] * 3)
    assert isinstance(found, OpeningSet)
    assert found.openings == ((ME, CAN), (NOT, DO), (SORRY, BUT))


def test_of_too_many_openings_the_rarest_are_left_out():
    # 33 openings, each seen twice, but the first once and the last three times.
    begins = [(ME, number) for number in range(100, 133)]
    times = [1, *[2] * 31, 3]
    answers = [one for opening, n in zip(begins, times, strict=True) for one in said("base", opening, times=n)]
    found = choose_openings([*answers, *HELP])
    assert isinstance(found, OpeningSet)
    assert found.openings == tuple(begins[1:])
    assert found.covered == {"base": 65 / 66}


def test_no_opening_begins_another_and_what_begins_with_a_short_one_is_covered():
    answers = [*said("base", (SORRY,), times=4), *said("base", (SORRY, BUT, ME), times=4), *said("base", (), times=2)]
    found = choose_openings([*answers, *HELP])
    assert isinstance(found, OpeningSet)
    assert found.openings == ((SORRY,),)
    assert found.covered == {"base": 8 / 10}


def test_8_refusals_of_a_tenth_of_the_unsafe_prompts_are_enough():
    assert isinstance(choose_openings([*said("base", (ME, CAN), times=8), *HELP]), OpeningSet)
    complies = said("base", (SURE, TO), refused=False, times=90)
    assert isinstance(choose_openings([*said("base", (ME, CAN), times=10), *complies]), OpeningSet)
    tuned_on_safe = said("tuned", (SURE, TO), unsafe=False, refused=False, times=5)
    answers = [*said("base", (ME, CAN), times=9), *complies, said("base", (SURE, TO), refused=False)[0], *tuned_on_safe]
    assert "the base model 9.0%, the tuned model 0.0%" in str(choose_openings(answers))


def test_too_few_refusals_make_no_set():
    safe_ones = said("base", (ME, CAN), unsafe=False, times=50)
    assert "together refused 7 unsafe prompts" in str(choose_openings([*said("base", (ME, CAN), times=7), *safe_ones]))


def test_models_that_hardly_refuse_make_no_set():
    complies = said("base", (SURE, TO), refused=False, times=91)
    answers = [*said("base", (ME, CAN), times=9), *complies, *said("tuned", (SURE, TO), refused=False, times=100)]
    assert "the base model 9.0%, the tuned model 0.0%" in str(choose_openings(answers))
    # One model that does is enough.
    assert isinstance(choose_openings([*answers, *said("other", (ME, CAN), times=1)]), OpeningSet)


def test_tree_by_hand():
    tree = build_tree([(ME, CAN, NOT), (ME, DO), (SORRY,)])
    assert tree.tokens == (ME, CAN)
    assert tree.parents == (0, 1)
    assert tree.depths == (1, 2)
    assert tree.children == ((ME, SORRY), (CAN, DO), (NOT,))
    assert sorted(tree.leaves) == [(0, SORRY), (1, DO), (2, NOT)]
    assert build_tree([(ME, CAN), (ME, CAN)]) == build_tree([(ME, CAN)])


@pytest.mark.parametrize("openings", [[], [()], [(ME,), (ME, CAN)]])
def test_openings_that_do_not_exclude_each_other_are_refused(openings):
    with pytest.raises(ValueError, match="opening"):
        build_tree(openings)
