"""Runs in a real store and a real database, compared as a person does it."""

from __future__ import annotations

import html.parser
import json
import os
import re
import sqlite3
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import sqlalchemy as sa

from jobs.compare.comparison import Comparison, compare_runs
from jobs.compare.report import write_comparison
from jobs.compare.runs import choose_runs, read_runs
from jobs.compare.wording import write_headline
from pipeline_common.errors import InputError
from pipeline_common.measures import Estimate, RefusalGap
from pipeline_common.stages import REPOSITORY
from pipeline_common.tables import TABLES
from pipeline_common.workplace import Workplace
from tests.compare.made_runs import PER_LABEL, MadeRun, make_runs
from tests.looking import LAPTOP, PAPER, PHONE, ask, look
from tests.servers.browser import Browser
from tests.servers.buckets import serve_rclone

ATTACK = "<script>alert(1)</script> | **bold** `x`"
BASE = {"base_model": f"embedded@0123456789ab {ATTACK}"}
THREE = (
    MadeRun("kept", changes=BASE),
    MadeRun("harmful", harmful=True, changes=BASE, keeps=0.5, refuses=0, log_odds_shift=-6.0),
    # The verdict and report of "kept", but answers and states that are a little worse.
    MadeRun("slipped", changes=BASE, keeps=0.9, refuses=PER_LABEL - 1, log_odds_shift=-0.2),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return make_runs(tmp_path_factory.mktemp("made") / "output", THREE)


@pytest.fixture(scope="module")
def comparison(place: Workplace) -> Comparison:
    return compare_runs(read_runs(place, ["harmful", "slipped", "kept"]).runs)


@pytest.fixture(scope="module")
def folder(comparison: Comparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_comparison(comparison, tmp_path_factory.mktemp("report") / "deep")


def compare(output: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "ARTIFACTS_URI"}}
    return subprocess.run(
        [sys.executable, "-m", "jobs.compare", *arguments, f"runtime.output_dir={output}"],
        cwd=REPOSITORY,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


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
    assert write_headline(alike) == "a ranks first of 2: no damage found; these prompts do not tell b from it."


def test_the_order_in_which_runs_are_named_changes_nothing(place, comparison):
    assert compare_runs(read_runs(place, ["kept", "harmful", "slipped"]).runs) == comparison


@pytest.mark.parametrize(
    ("other", "names", "words"),
    [
        (MadeRun("other", changes={"base_model": "mistral@fff"}), "base model", "mistral@fff, quantization nf4"),
        (MadeRun("other", prompts=66), "prompts", "132 of sample:litmus"),
        (MadeRun("other", changes={"representation": "mean of all tokens"}), "representation", "mean of all tokens"),
        (MadeRun("other", overrides=("prepare.prompt_format=chat_template",)), "prompts", "chat_template"),
    ],
    ids=["base", "prompts", "representation", "format"],
)
def test_runs_that_measured_something_else_are_refused_by_name(tmp_path, other, names, words):
    made = make_runs(tmp_path / "output", [MadeRun("first"), MadeRun("second"), other])
    chosen = read_runs(made, ["first", "second", "other"])
    with pytest.raises(InputError, match=f"they differ in {names}:") as refused:
        compare_runs(chosen.runs)
    line = next(line for line in str(refused.value).splitlines() if line.startswith(f"  - {names}:"))
    assert " in first, second; " in line
    assert words in line
    assert line.endswith(" in other")


def test_one_run_alone_is_not_a_comparison(tmp_path):
    made = make_runs(tmp_path / "output", [MadeRun("first")])
    with pytest.raises(InputError, match="only one finished run can be compared, first"):
        choose_runs(made)
    with pytest.raises(InputError, match="no finished run called absent; finished are first"):
        read_runs(made, ["first", "absent"])
    with pytest.raises(InputError, match="at least two runs, came first"):
        read_runs(made, ["first", "first"])


def test_without_a_database_it_says_what_to_do(tmp_path):
    nothing = compare(tmp_path / "elsewhere")
    assert nothing.returncode == 3
    assert "run the pipeline first" in nothing.stderr


def test_by_default_all_comparable_runs_of_the_newest_base_are_taken(tmp_path):
    runs = [MadeRun("first"), MadeRun("odd", prompts=66), MadeRun("second"), MadeRun("newest")]
    made = make_runs(tmp_path / "output", runs)
    # Made within a millisecond of each other: let the order be plain.
    table = TABLES["experiments"]
    for day, run in enumerate(runs, start=1):
        moment = f"2026-01-{day:02d}T00:00:00+00:00"
        made.database.transact(
            lambda connection, run=run, moment=moment: connection.execute(
                sa.update(table).where(table.c.run_id == run.run_id).values(created_at=moment)
            )
        )
    chosen = choose_runs(made)
    assert [run.run_id for run in chosen.runs] == ["newest", "second", "first"]
    assert chosen.left_out == ("odd: another prompts than newest",)
    assert compare_runs(chosen.runs, chosen.left_out).left_out == chosen.left_out


def test_an_unfinished_run_is_not_compared(tmp_path):
    made = make_runs(tmp_path / "output", [MadeRun("first"), MadeRun("second"), MadeRun("failed")])
    table = TABLES["stage_runs"]
    made.database.transact(
        lambda connection: connection.execute(
            sa.update(table).where(table.c.run_id == "failed", table.c.stage == "analyze").values(state="failed")
        )
    )
    assert {run.run_id for run in choose_runs(made).runs} == {"first", "second"}
    with pytest.raises(InputError, match="no finished run called failed"):
        read_runs(made, ["first", "failed"])


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


def test_a_database_that_tells_another_story_is_an_error(tmp_path):
    made = make_runs(tmp_path / "output", [MadeRun("a"), MadeRun("b")])
    with sqlite3.connect(tmp_path / "output" / "results.db") as database:
        database.execute("UPDATE evaluation_summary SET status = 'damaged' WHERE run_id = 'a' AND name = 'verdict'")
    with pytest.raises(InputError, match=r"run a: the verdict is 'no damage found' in analyze/.* and 'damaged' in"):
        read_runs(made, ["a", "b"])


def test_settings_that_differ_are_listed_and_measuring_ones_are_a_caution(tmp_path):
    runs = [MadeRun("a"), MadeRun("b", overrides=("evaluate.max_new_tokens=24", "runtime.threads=2"))]
    made = make_runs(tmp_path / "output", runs)
    found = compare_runs(read_runs(made, ["a", "b"]).runs)
    assert set(found.settings) == {"evaluate.max_new_tokens", "train.seed"}
    assert found.settings["evaluate.max_new_tokens"] == {"a": "32", "b": "24"}
    assert any("evaluate.max_new_tokens" in caution for caution in found.cautions)


class Page(html.parser.HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.numbers: dict[str, float] = {}
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.extend((tag, name, value or "") for name, value in attrs)
        found = dict(attrs)
        if tag == "data" and found.get("data-field"):
            self.numbers[str(found["data-field"])] = float(str(found["value"]))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    page = Page()
    page.feed((folder / "comparison.html").read_text(encoding="utf-8"))
    return page


def test_the_page_is_self_contained_and_escapes_everything(folder, page):
    assert "script" not in page.tags
    asked = [value for _, name, value in page.attributes if name in {"src", "href", "xlink:href"}]
    assert asked
    assert all(value.startswith("#") for value in asked)
    assert page.tags.count("svg") == 2
    assert ATTACK in page.text
    identifiers = [value for _, name, value in page.attributes if name == "id"]
    assert len(identifiers) == len(set(identifiers))
    assert (folder / "comparison.html").stat().st_size < 1_000_000


def test_it_looks_right_on_a_phone_a_laptop_and_paper(browser: Browser, folder: Path) -> None:
    for size, how in ((PHONE, {}), (LAPTOP, {}), (LAPTOP, {"dark": True}), (PAPER, {"paper": True})):
        shown = look(browser, folder / "comparison.html", size, **how)
        assert ask(shown, "scrollingTables()") == []
        shown.close()


def test_numbers_on_the_page_equal_the_database(page, place):
    """Drops of all three runs, with their intervals, to the last digit."""
    assert len(page.numbers) == 3 * 2 * 3
    for name, value in page.numbers.items():
        run_id, table, *key, column = name.split("/")
        row = TABLES[table]
        query = sa.select(row).where(row.c.run_id == run_id)
        parts = (row.c.name == key[0],) if table == "evaluation_summary" else (row.c.scope == key[0],)
        stored = place.database.select(query.where(*parts))
        assert [one[column] for one in stored] == [value], name


def test_the_text_says_the_same_and_the_json_reads_back(folder, comparison, page):
    assert Comparison.model_validate_json((folder / "comparison.json").read_bytes()) == comparison
    text = (folder / "comparison.md").read_text(encoding="utf-8")
    assert "<script>" not in text
    plain = re.sub(r"\\(.)", r"\1", text)
    for run in comparison.runs:
        assert f"| {run.rank}. {run.run_id} | {run.verdict}" in plain
        assert run.headline in plain
        assert run.headline in page.text.replace("\N{NO-BREAK SPACE}", " ")
    assert "2. slipped is told from kept by: drop of the refusal gap; drop of f2; move of the" in plain
    for name in ("drops", "refusals"):
        ET.fromstring((folder / "figures" / f"{name}.svg").read_text(encoding="utf-8"))
        assert (folder / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_comparison_gives_the_same_bytes(comparison, folder, tmp_path):
    write_comparison(comparison, tmp_path)
    for name in ("comparison.html", "comparison.md", "comparison.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_the_command_finds_the_runs_in_a_bucket(place, tmp_path):
    """As from a directory; of each artifact only what is read is fetched."""
    from pipeline_common.artifacts import open_store
    from pipeline_common.config import ArtifactsConfig

    (tmp_path / "served").mkdir()
    with serve_rclone(tmp_path / "served") as server, pytest.MonkeyPatch.context() as patch:
        variables = {**server.environment(), "ARTIFACTS_URI": "s3://artifacts/of/tests"}
        for name, value in variables.items():
            patch.setenv(name, value)
        bucket = open_store(variables["ARTIFACTS_URI"], ArtifactsConfig(), tmp_path / "sender")
        for run in THREE[:2]:
            record = f"runs/{run.run_id}/run.json"
            content = place.store.get_bytes(record)
            bucket.put_bytes(record, content)
            for stage in json.loads(content)["stages"].values():
                manifest = place.store.read_manifest(stage["artifact"])
                if bucket.read_manifest(manifest.key) is None:
                    bucket.publish(place.store.open(manifest), manifest)
        output = tmp_path / "output"
        database = f"sqlite:///{place.output}/results.db"
        done = compare(output, "--run", "kept", "--run", "harmful", **{**variables, "DATABASE_URL": database})
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == ["1. kept: no damage found", "2. harmful: damaged"]
    written = Path(done.stdout.splitlines()[2])
    assert written.parent.parent == output.resolve() / "comparisons"
    assert written.exists()
    fetched = {path.name for path in (output / "cache").rglob("*") if path.is_file()}
    assert "embeddings.safetensors" in fetched
    assert "training_metrics.jsonl" not in fetched
