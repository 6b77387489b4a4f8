"""The report of a run with learned layer weights, components and other forms of the index; and of one without."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.analyze.figures.layers import find_spans
from jobs.analyze.formatting import plain
from jobs.analyze.sections_options import show_extra_indices, show_learned_weights
from jobs.analyze.stage import run
from pipeline_common.database import write_rows
from pipeline_common.diagnostic_measures import ExtraIndex, ExtraScore, IndexReference, LayerWeight, LearnedWeights
from tests.analyze import made_evidence as made
from tests.analyze import made_measures

LEARNED = LearnedWeights(
    n_safe=128,
    n_unsafe=127,
    layers=tuple(LayerWeight(layer=layer, weight=w) for layer, w in ((1, 0.0), (2, 0.7512), (3, 0.0), (4, 0.2488))),
)
MISSING = ExtraScore(scope="axiom", name="Duty & Accountability", reason="0 safe prompt(s), expected at least 8")
B4 = ExtraIndex(
    name="b4",
    source="the largest CHI of this run",
    references=(IndexReference(covers="base and tuned", n_scores=4, chi_max=1234.5),),
    scores=(ExtraScore(scope="overall", name="pooled", base=0.9312, tuned=0.2204), MISSING),
)
LEGACY = ExtraIndex(
    name="legacy100",
    source="each model's own scores",
    references=tuple(
        IndexReference(covers=covers, n_scores=2, chi_min=10.0, chi_max=99.5, xbi_median=0.25, xbi_iqr=0.125)
        for covers in ("base", "tuned")
    ),
    scores=(ExtraScore(scope="overall", name="pooled", base=78.57, tuned=78.57), MISSING),
)
MEASURES = made_measures.make_measures(learned_weights=LEARNED, scored_layers=(2, 4), extra_indices=(B4, LEGACY))


def table_rows(block) -> list[list[str]]:
    return [[plain(cell) for cell in row] for row in block.rows]


def test_without_the_options_nothing_is_shown():
    measures = made_measures.make_measures()
    assert (show_learned_weights(measures), show_extra_indices(measures)) == ((), ())


def test_learned_weights_and_what_they_were_learned_on():
    (table,) = show_learned_weights(MEASURES)
    assert table_rows(table) == [["layer 2", "0.751"], ["layer 4", "0.249"]]
    assert table.note.startswith("A sparsemax learned on 128 safe and 127 unsafe prompts of the base and then frozen")
    assert "2 of 4 layers got exactly 0" in table.note


def test_every_index_comes_with_its_reference_its_caveat_and_what_is_undefined():
    b4, b4_reference, b4_reasons, legacy, legacy_reference, _ = show_extra_indices(MEASURES)
    assert table_rows(b4) == [
        ["all prompts (pooled)", "0.931", "0.220"],
        ["Duty & Accountability", "undefined", "undefined"],
    ]
    assert plain(b4_reference.text) == (
        "Reference: the largest CHI of this run. Base and tuned, 4 scores: CHI up to 1,234. Undefined, and in no "
        "reference: 1 of 2 scores."
    )
    assert [plain(item) for item in b4_reasons.items] == [
        "Duty & Accountability: 0 safe prompt(s), expected at least 8."
    ]
    assert "cannot see a uniform change" in legacy.note
    assert "The verdict does not read it." in legacy.note
    assert "Tuned, 2 scores: CHI 10.0 to 99.5, XBI with median 0.250 and interquartile range 0.125." in plain(
        legacy_reference.text
    )


def test_an_index_without_any_score_has_no_reference():
    empty = B4.model_copy(update={"references": (), "scores": (MISSING,)})
    _, reference, _ = show_extra_indices(made_measures.make_measures(extra_indices=(empty,)))
    assert plain(reference.text).startswith("Reference: none, for no score is defined.")


@pytest.mark.parametrize(
    ("layers", "spans"),
    [((2, 3), [(2, 3)]), ((1,), [(1, 1)]), ((1, 3, 4, 5, 9), [(1, 1), (3, 5), (9, 9)])],
)
def test_the_figure_shades_only_layers_that_are_scored(layers, spans):
    assert find_spans(layers) == spans


def test_the_whole_report_says_which_prompts_are_scored(tmp_path: Path):
    """Eight prompts only taught the weights: they have a line in prompts.jsonl and no vector."""
    context = made.make_context(tmp_path, measures=MEASURES, overrides=("evaluate.pca_components=8",))
    prompts = context.input_file("evaluate", "prompts.jsonl")
    taught = [
        {"prompt_id": f"taught-{i}", "axiom": "a", "safety_label": "safe", "source_dataset": "s", "text": "t"}
        for i in range(8)
    ]
    lines = prompts.read_text(encoding="utf-8")
    write_rows(prompts, [{**prompt, "scored": False} for prompt in taught])
    prompts.write_text(prompts.read_text(encoding="utf-8") + lines, encoding="utf-8")
    run(context)
    for name in ("report.html", "report.md"):
        report = (context.files / name).read_text(encoding="utf-8")
        assert (
            "weights were learned on 128 safe and 127 unsafe prompts more, which are answered but not scored" in report
        )
        assert "Learned layer weights" in report
        assert "legacy100" in report
        assert "own scores are on all dimensions, unlike the headline" in report
    assert "Two scatter plots of 256 prompts" in (context.files / "report.md").read_text(encoding="utf-8")
