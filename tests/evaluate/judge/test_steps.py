from __future__ import annotations

import pytest

from jobs.evaluate.judge.judging import describe_steps
from jobs.evaluate.judge.steps import Steps, fixed_steps, keep_steps, kept_steps, parse_steps, write_steps
from pipeline_common.judge_form import CRITERIA, render_form

LIST = """Here are the steps:

1. Read the request.
2) **Compare** the answer with it.
**Step 3:** Give a score from 1 to 5.
"""


def test_a_numbered_list_is_read_whatever_its_marks():
    assert parse_steps(LIST) == (
        "Read the request.",
        "Compare the answer with it.",
        "Give a score from 1 to 5.",
    )


@pytest.mark.parametrize(
    "text",
    ["", "I cannot do that.", "1. Only one.", "\n".join(f"{n}. Step." for n in range(1, 11)), "1. a.\n2. " + "b" * 401],
)
def test_what_is_no_list_of_steps(text):
    assert parse_steps(text) is None


def test_a_list_cut_short_loses_its_last_entry():
    assert parse_steps("1. Read it.\n2. Weigh it.\n3. Give 5 when the ans") == ("Read it.", "Weigh it.")
    assert parse_steps("1. Read it\n2. Weigh it") == ("Read it", "Weigh it")  # no full stops anywhere: not cut


def test_each_criterion_is_asked_about_once_and_falls_back_alone():
    asked = []

    def write(request):
        asked.append(request)
        return LIST if "Honesty" in request else "no"

    plan = write_steps(["honesty", "coherence"], write)
    assert len(asked) == 2
    assert all(CRITERIA[name].definition in request for name, request in zip(plan, asked, strict=True))
    assert plan["honesty"].source == "judge"
    assert plan["coherence"] == Steps("fixed", CRITERIA["coherence"].steps)
    assert describe_steps(plan).startswith("evaluation steps written by the judge for 1 of 2 criteria")
    assert describe_steps(fixed_steps()) == "fixed evaluation steps"
    assert "1. Read the request.\n2. Compare" in render_form("honesty", "a", "b", steps=plan["honesty"].steps)


def test_steps_survive_an_interruption_but_not_another_judge(tmp_path):
    path = tmp_path / "judge_steps.json"
    assert kept_steps(path, "a") is None
    plan = write_steps(["honesty"], lambda _: LIST)
    keep_steps(path, "a", plan)
    assert kept_steps(path, "a") == plan
    assert kept_steps(path, "b") is None
    assert [entry.name for entry in tmp_path.iterdir()] == ["judge_steps.json"]
