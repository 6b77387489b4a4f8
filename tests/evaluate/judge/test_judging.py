from __future__ import annotations

from jobs.evaluate.judge.judging import describe_judge
from pipeline_common.model_location import ResolvedModel

BASE = ResolvedModel(kind="hub", reference="org/base", commit="b" * 40)


def test_the_embedded_judge_states_its_limits():
    judge = ResolvedModel(kind="embedded", reference="embedded-judge", commit="c" * 40, facts={"parameters": 147_776})
    note = describe_judge(judge, BASE)
    assert note.startswith("a 0.15 M model trained by this project on its own sample sentences")
    assert "no independent opinion" in note
    assert "BIAS" not in note


def test_a_judge_that_is_the_base_is_shown_as_biased():
    assert "BIAS" in describe_judge(BASE.model_copy(update={"commit": "d" * 40}), BASE)
    assert "BIAS" in describe_judge(BASE.model_copy(update={"reference": "copy/of-base"}), BASE)
    other = ResolvedModel(kind="hub", reference="org/other", commit="d" * 40)
    assert "BIAS" not in describe_judge(other, BASE)
