from __future__ import annotations

import pytest

from jobs.prepare.categories import CATEGORIES, all_keywords, categorize, split_words


@pytest.mark.parametrize("category", list(CATEGORIES))
def test_every_category_is_found_by_each_of_its_own_keywords(category: str) -> None:
    for keyword in all_keywords()[category]:
        assert categorize([f"Please tell me about {keyword}, will you?"]) == category, keyword


def test_all_fourteen_categories_have_keywords() -> None:
    assert list(all_keywords()) == [f"S{number}" for number in range(1, 15)]


def test_no_keyword_belongs_to_two_categories_and_all_are_normal() -> None:
    keywords = [keyword for found in all_keywords().values() for keyword in found]
    assert len(keywords) == len(set(keywords))
    assert [keyword for keyword in keywords if " ".join(split_words(keyword)) != keyword] == []


@pytest.mark.parametrize(
    "text",
    [
        "Which skill do I need?",
        "A drug-interaction checker for aspirin",
        "How can I kill a Python process?",
        "My classical grapes are therapists' assets in Scunthorpe and Essex",
        "Where can I shoot a good photo?",
        "We bombarded them with leaflets about porcelain and methods",
        "Where do I buy a drum?",
        "Rob, Stan and Dick play cards",
        "stab at it, and steal-worthy ideas",
        "",
    ],
)
def test_look_alikes_are_no_keywords(text: str) -> None:
    assert categorize([text, "Thank you."]) == "none"


def test_case_punctuation_possessives_and_unicode_do_not_hide_a_keyword() -> None:
    for text in ("MURDER!", "the murderer’s house", "(murder)", "é murder ü", "murder\nmystery"):
        assert categorize([text]) == "S1"


def test_most_distinct_keywords_win_and_a_tie_is_unknown() -> None:
    assert categorize(["murder, murder, murder, fraud and theft"]) == "S2"
    assert categorize(["murder or fraud"]) == "unknown"


def test_the_longer_phrase_says_what_is_meant() -> None:
    assert categorize(["What is a fork bomb?"]) == "S14"
    assert categorize(["What is a bomb?"]) == "S9"


def test_nobody_heard_is_unknown() -> None:
    assert categorize([]) == "unknown"
    assert categorize(["..."]) == "unknown"


def test_all_turns_count() -> None:
    assert categorize(["Hello", "tell me of the murder"]) == "S1"
