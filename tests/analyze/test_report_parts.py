"""The pure parts of the report: how numbers are written, which answers are shown, what is drawn where."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from jobs.analyze import formatting as form
from jobs.analyze.examples import choose_examples, list_examples
from jobs.analyze.figures.aqi import draw_aqi
from jobs.analyze.figures.behaviour import draw_behaviour
from jobs.analyze.figures.layers import draw_layers
from jobs.analyze.figures.projection import draw_projection, project
from jobs.analyze.figures.training import draw_training
from jobs.analyze.report import to_fence, to_html, to_markdown
from jobs.analyze.sections_provenance import _describe_machine
from pipeline_common.measures import Estimate
from tests.analyze import made_measures

H200 = {"name": "H200", "memory": "143771 MiB", "driver": "580.95"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1380.4, "1,380"),
        (142.4, "142"),
        (11.34, "11.3"),
        (-1.2345, "-1.23"),
        (0.1234, "0.123"),
        (0.00421, "0.0042"),
        (0.00001234, "1.2e-05"),
        (0.0, "0"),
    ],
)
def test_significant_digits(value: float, expected: str) -> None:
    assert form.SIGNIFICANT.write(value) == expected


@pytest.mark.parametrize(
    ("written", "value", "expected"),
    [
        (form.RATE, 0.984, "98.4"),
        (form.RATE_POINTS, -0.0781, "-7.8"),
        (form.RATE_POINTS, 0.02, "+2.0"),
        (form.PERCENT, -0.04, "0.0"),  # a rounded zero has no sign
        (form.POINTS, -0.04, "+0.0"),
        (form.SIGNED_TWO_DIGITS, -0.056, "-0.06"),
        (form.PROBABILITY, 0.0004, "< 0.001"),
        (form.PROBABILITY, 0.0412, "0.041"),
        (form.COUNT, 20439, "20,439"),
    ],
)
def test_other_forms(written: form.Form, value: float, expected: str) -> None:
    assert written.write(value) == expected


def test_an_estimate_shows_its_interval_or_the_word_for_its_absence() -> None:
    full = Estimate(value=12.34, low=10.06, high=14.51)
    assert form.plain(form.estimate(full, form.PERCENT)) == "12.3 [10.1, 14.5]\N{NO-BREAK SPACE}%"
    assert form.plain(form.estimate(Estimate(value=12.34), form.PERCENT)) == "12.3\N{NO-BREAK SPACE}%"
    assert form.plain(form.estimate(Estimate(value=None), form.PERCENT)) == "undefined"


def test_html_keeps_the_exact_value_and_escapes_everything() -> None:
    shown = form.line("<b> ", form.number(1 / 3, form.SIGNIFICANT, 'a"b/c'))
    assert to_html(shown) == (
        '&lt;b&gt; <data value="0.3333333333333333" data-field="a&#34;b/c">0.333</data>'  # repr(1 / 3)
    )


def test_markdown_shows_text_and_nothing_else() -> None:
    assert to_markdown("a | b <i> *c*\n# d `e` [f](g) h_i") == r"a \| b \<i\> \*c\* \# d \`e\` \[f\](g) h\_i"
    assert to_fence("x\n````\ny") == "`````text\nx\n````\ny\n`````"


def row(prompt_id: str, role: str, label: str, response: str, refused: bool, log_odds: float | None) -> dict[str, Any]:
    return {
        "prompt_id": prompt_id,
        "model_role": role,
        "axiom": "a",
        "safety_label": label,
        "prompt": "p",
        "response": response,
        "refused": refused,
        "refusal_log_odds": log_odds,
    }


def test_examples_are_those_that_changed_most() -> None:
    rows = [
        *(row("same", role, "unsafe", "No.", True, 1.0) for role in ("base", "tuned")),
        row("shifted", "base", "unsafe", "No.", True, 5.0),
        row("shifted", "tuned", "unsafe", "No!", True, 1.0),
        row("flipped", "base", "unsafe", "No.", True, 1.0),
        row("flipped", "tuned", "unsafe", "Yes.", False, None),
        row("lonely", "base", "unsafe", "No.", True, 1.0),
        *(row("safe", role, "safe", role, False, None) for role in ("base", "tuned")),
    ]
    every = list_examples(rows)
    assert [example.prompt_id for example in every] == ["flipped", "shifted", "safe", "same"]
    assert [example.outcome for example in every] == ["lost", "refused", "answered", "refused"]
    chosen = choose_examples(every, per_label=2)
    assert [example.prompt_id for example in chosen] == ["flipped", "shifted", "safe"]
    assert [example.shift for example in chosen] == [None, -4.0, None]
    assert every == list_examples(list(reversed(rows)))


def test_answers_to_unsafe_prompts_can_be_left_out() -> None:
    rows = [row(label, role, label, "words", False, None) for label in ("safe", "unsafe") for role in ("base", "tuned")]
    kept = {example.safety_label: example.tuned.text for example in list_examples(rows, without_unsafe=True)}
    assert kept == {"safe": "words", "unsafe": None}


def test_a_judges_score_that_is_missing_is_no_number() -> None:
    rows = [row("a", role, "safe", "x", False, None) for role in ("base", "tuned")]
    rows[0]["judge_scores"] = {"helpfulness": {"score": 0.25}, "honesty": {"score": None, "missing": "no digit"}}
    (example,) = list_examples(rows)
    assert (example.base.scores, example.tuned.scores) == ({"helpfulness": 0.25}, {})


def test_a_long_answer_is_cut_and_says_by_how_much() -> None:
    rows = [row("long", role, "safe", "x" * 5000, False, None) for role in ("base", "tuned")]
    (example,) = list_examples(rows)
    assert example.base.cut == 3800
    assert example.base.text == "x" * 1200 + " …"


def test_the_plane_is_fitted_on_the_base_and_applied_to_both() -> None:
    random = np.random.default_rng(3)
    base = (random.normal(size=(50, 6)) * np.array([9, 4, 1, 1, 1, 1])).astype(np.float32)
    moved = base + np.array([5, 0, 0, 0, 0, 0], dtype=np.float32)
    first, second, shares = project(base, moved)
    assert abs(first.mean(axis=0)).max() < 1e-6  # centred on the base
    # A translation by 5 along the longest axis: same shape, moved by about 5 along the first component.
    assert np.allclose(second - first, (second - first)[0], atol=1e-5)
    assert abs(np.linalg.norm((second - first)[0]) - 5) < 0.1
    assert 1 > shares[0] > shares[1] > 0


def test_figures_carry_hostile_names_as_text() -> None:
    score = made_measures.score("axiom", "$\\frac{--><script>alert(1)</script>", 64, 3.0, 2.0)
    measures = made_measures.make_measures(geometry=(score,))
    for picture in (draw_aqi(measures), draw_behaviour(measures), draw_layers(measures)):
        assert "<script" not in picture.inline()
        assert 'id="' not in picture.inline().replace(f'id="{picture.name}-', "")
    assert "No layer has a defined score" in draw_layers(measures).alt


def test_many_prompts_do_not_make_a_huge_file() -> None:
    random = np.random.default_rng(5)
    points = random.normal(size=(4000, 4)).astype(np.float32)
    picture = draw_projection(points, points, ["safe", "unsafe"] * 2000)
    assert len(picture.svg) < 600_000


def test_a_training_without_losses_says_so() -> None:
    rows = [{"split": "train", "step": 1, "loss": None}]
    assert draw_training(rows).alt == "No loss was recorded."


@pytest.mark.parametrize(
    ("machine", "gpus"),
    [
        ({"gpus": []}, "no GPU"),  # as before `gpus_error` was kept
        ({"gpus": [], "gpus_error": None}, "no GPU"),
        ({"gpus": [H200, H200], "gpus_error": None}, "H200 143771 MiB 580.95; H200 143771 MiB 580.95"),
        ({"gpus": [], "gpus_error": "nvidia-smi failed"}, "nvidia-smi failed"),
        ({"gpus": [H200], "gpus_error": "nvidia-smi failed"}, "H200 143771 MiB 580.95; nvidia-smi failed"),
    ],
)
def test_a_machine_whose_gpus_are_not_known_is_never_one_without(machine, gpus) -> None:
    known = {"python": "3.11.2", "os": "Linux", "cpus": 2}
    assert _describe_machine(known | machine) == f"Python 3.11.2, Linux, 2 CPUs, {gpus}"
