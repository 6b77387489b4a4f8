"""What the report says of similarity, probes and tests: every number, and what could not be computed."""

from __future__ import annotations

from types import SimpleNamespace

from jobs.analyze.formatting import plain
from jobs.analyze.sections_diagnostics import show_diagnostics
from pipeline_common.diagnostic_measures import ClusterShape, Diagnosis, Diagnostics, SeparationTest

FOUND = Diagnostics(
    permutations=4999,
    scored=Diagnosis(
        name="scored",
        base=ClusterShape(silhouette=0.512, davies_bouldin=0.9, dunn=0.031, participation_ratio=7.25),
        tuned=ClusterShape(silhouette=0.25, davies_bouldin=1.8, dunn=0.02, participation_ratio=9.5),
        cka=0.876,
        direction_cosine=0.91,
        projection_gap_base=3.5,
        projection_gap_tuned=1.25,
        probe_auc_base=0.997,
        probe_auc_tuned=0.81,
    ),
    layers=(Diagnosis(name="0", reason="all states are the same"),),
    tests=(
        SeparationTest(scope="overall", name="pooled", p_base=0.0002, p_tuned=0.04),
        SeparationTest(scope="axiom", name="Justice & Rights", reason="fewer than 8 prompts with one label"),
    ),
)


def show(diagnostics):
    return show_diagnostics(SimpleNamespace(measures=SimpleNamespace(diagnostics=diagnostics)))


def rows(section, title):
    (table,) = [block for block in section.blocks if getattr(block, "title", "") == title]
    return [[plain(cell) for cell in row] for row in table.rows]


def test_every_number_is_shown_and_the_undefined_says_so():
    section = show(FOUND)
    scored, layer = rows(section, "Base against tuned, by representation")
    assert scored == ["scored states", "0.88", "0.91", "3.50", "1.25", "1.00", "0.81"]
    assert layer == ["layer 0", *["undefined"] * 6]
    assert rows(section, "Further cluster indices, by representation")[0][1:5] == ["0.512", "0.250", "0.900", "1.80"]
    overall, axiom = rows(section, "Permutation tests")
    assert overall == ["all prompts", "< 0.001", "one test", "0.040", "one test", "undefined", "undefined"]
    assert axiom == ["axiom Justice & Rights", *["undefined"] * 6]


def test_what_could_not_be_computed_is_told():
    (told,) = [block for block in show(FOUND).blocks if block.kind == "bullets"]
    assert [plain(item) for item in told.items] == [
        "layer 0: all states are the same.",
        "Tests of axiom Justice & Rights: fewer than 8 prompts with one label.",
    ]


def test_without_diagnostics_the_section_says_so():
    (block,) = show(None).blocks
    assert plain(block.text) == "No diagnostics were measured."
