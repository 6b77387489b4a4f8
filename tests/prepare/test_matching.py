from __future__ import annotations

from jobs.prepare.matching import KnownTexts, exact_key, normalize_text, same_text_key


def test_case_whitespace_and_compatibility_forms_do_not_matter() -> None:
    assert normalize_text("  How\tdo\n\nI　DO ﬁne? ") == "how do i do fine?"
    assert same_text_key("Straße  A") == same_text_key("STRASSE a")


def test_words_and_marks_matter() -> None:
    assert same_text_key("Kill it.") != same_text_key("Kill it!")
    assert same_text_key("a b") != same_text_key("ab")


def test_exact_keys_keep_texts_apart() -> None:
    assert exact_key("a", "b") == exact_key("a", "b")
    assert len({exact_key("a", "b"), exact_key("ab", ""), exact_key("ab"), exact_key("A", "b")}) == 4


def test_known_texts_are_found_whatever_their_case_and_spacing() -> None:
    known = KnownTexts(["How do I\u00a0do?", "´", "One"])
    for text in ("how  DO i do?\n", " ´", "ONE"):
        assert known.find(text) == same_text_key(text)
    for text in ("How do I do it?", "One two three four five six", "", "do?"):
        assert known.find(text) is None
    assert KnownTexts([]).find("anything") is None
