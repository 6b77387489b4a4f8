"""The synthetic calibration: what is planned, drawn, remembered, and said about it."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace

import pytest

from jobs.calibrate.synthetic.figure import draw_synthetic
from jobs.calibrate.synthetic.plans import drop_pct, plan_synthetic
from jobs.calibrate.synthetic.results import finished_results, rewrite_results
from jobs.calibrate.synthetic.running import run_cell, run_synthetic
from jobs.calibrate.synthetic.table import write_synthetic
from pipeline_common.errors import InputError
from pipeline_common.stages import REPOSITORY

CELLS = plan_synthetic(runs=3, resamples=20)
SMALL = [replace(cell, plant=replace(cell.plant, width=4)) for cell in CELLS if cell.plant.n <= 256]


def test_the_plan_holds_what_is_promised():
    groups = {group: [cell for cell in CELLS if cell.group == group] for group in {cell.group for cell in CELLS}}
    covered = {(cell.plant.n, cell.plant.share_unsafe, cell.plant.decay) for cell in groups["coverage"]}
    assert covered == {(n, s, d) for n in (128, 256, 512) for s in (0.5, 0.3) for d in (0.5, 1.0, 1.5)}
    assert {cell.plant.n for cell in groups["mean"]} == {64, 128, 256, 512, 1024, 2048, 4096}
    assert {cell.plant.label_noise for cell in groups["label noise"]} == {0.01, 0.05, 0.1}
    assert {cell.plant.duplicates for cell in groups["duplicates"]} == {0.0, 0.1, 0.5}
    assert {drop_pct(cell.plant) for cell in groups["power"]} == {0, 5, 10, 15, 20, 30}
    assert len({cell.name for cell in CELLS}) == len(CELLS) == 62


def test_a_drawn_cell_counts_runs():
    cell = replace(next(cell for cell in CELLS if cell.group == "power" and drop_pct(cell.plant) == 30), runs=20)
    found = run_cell(cell, seed=0, code="c")
    assert found == run_cell(cell, seed=0, code="c")
    assert found.mean_f2 != run_cell(cell, seed=1, code="c").mean_f2
    assert (found.n, found.drop_pct, found.planted_f2, found.expected_f2) == (128, 30, 1, 1)
    assert found.alarms is not None
    assert found.above_zero == 20  # a drop of 30 % in 128 prompts is never missed
    assert 15 <= found.alarms <= 20
    assert found.mean_error_pct == pytest.approx(100 * (found.mean_f2 - 1), abs=1e-3)
    assert 1 < found.mean_se_pct < 10
    mean = run_cell(next(cell for cell in CELLS if cell.group == "mean"), seed=0, code="c")
    assert (mean.runs, mean.resamples, mean.f2_covered) == (12, 0, None)


def test_processes_make_no_difference_and_what_is_finished_is_found(tmp_path):
    cells, path = SMALL[:3], tmp_path / "synthetic.csv"
    one = {cell: run_cell(cell, 7, "c") for cell in cells}
    two = list(run_synthetic(cells, 7, "c", processes=2))
    assert sorted(two, key=repr) == sorted(one.values(), key=repr)
    rewrite_results(path, [one[cells[2]], one[cells[0]]])
    assert finished_results(path, cells, 7, "c") == [one[cells[0]], None, one[cells[2]]]
    # Another seed, other code or other runs: nothing of it counts.
    assert finished_results(path, cells, 8, "c") == [None] * 3
    assert finished_results(path, cells, 7, "d") == [None] * 3
    assert finished_results(path, [replace(cells[0], runs=4)], 7, "c") == [None]
    path.write_text(path.read_text().replace("coverage", "covrage"))
    with pytest.raises(InputError, match=r"line 2: group: .*remove the line, and its plant is drawn again"):
        finished_results(path, cells, 7, "c")


def test_table_and_figure_say_the_numbers():
    # 950 of 1000 everywhere but once; the exact binomial interval of 950 of 1000 is 93.5 to 96.3 %.
    template = run_cell(SMALL[0], 0, "c").model_copy(
        update={"runs": 1000, "f2_covered": 950, "difference_covered": 950, "drop_covered": 950, "alarms": 0}
    )
    results = [
        template.model_copy(
            update={
                "group": cell.group,
                "n": cell.plant.n,
                "share_unsafe": cell.plant.share_unsafe,
                "decay": cell.plant.decay,
                "label_noise": cell.plant.label_noise,
                "duplicates": cell.plant.duplicates,
                "drop_pct": drop_pct(cell.plant),
                "mean_f2": 1.0123,
                "mean_error_pct": 1.23,
                "mean_se_pct": 0.4,
            }
        )
        for cell in CELLS
    ]
    results[0] = results[0].model_copy(update={"drop_covered": 920})
    table = write_synthetic(results, "python -m jobs.calibrate --synthetic")
    assert "- Coverage: 92.0 to 95.0 % over 54 plants and quantities; 1 of them outside 93 to 97 %." in table
    assert (
        "| 1/k^0.5, 128, 50 % | 95.0 (93.5 to 96.3) | 95.0 (93.5 to 96.3) | 92.0 (90.1 to 93.6) | +1.23 ± 0.40 |"
        in table
    )
    assert "- False alarms without a drop: 0 of 4,000 draws, 0.0 (0.0 to 0.1) %." in table
    assert "| 30 | 0.0 (0.0 to 0.4) |" in table
    for rows in re.findall(r"(?:^\|.*\n)+", table, re.MULTILINE):
        assert len({line.count("|") for line in rows.splitlines()}) == 1, rows
    picture = draw_synthetic(results)
    assert "92.0 to 95.0 %" in picture.alt
    assert picture == draw_synthetic(results)


def test_the_command_goes_on_where_it_was(tmp_path):
    def calibrate(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "jobs.calibrate", "--synthetic", "--runs", "2", "--resamples", "20"]
        return subprocess.run(
            [*command, "--output", str(tmp_path), *arguments],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )

    first = calibrate("--jobs", "2")
    assert first.returncode == 0, first.stderr
    assert {path.name for path in tmp_path.iterdir()} == {
        "synthetic.csv",
        "synthetic.md",
        "synthetic.png",
        "synthetic.svg",
    }
    assert first.stdout == (tmp_path / "synthetic.md").read_text()
    content = (tmp_path / "synthetic.csv").read_text()
    lines = content.splitlines(keepends=True)
    assert len(lines) == 1 + 62
    # As after a kill: the last plant is missing, the one before it torn.
    (tmp_path / "synthetic.csv").write_text("".join(lines[:-2]) + lines[-2][:20])
    assert calibrate("--dry-run").stdout.splitlines() == [cell.name for cell in CELLS[-2:]]
    again = calibrate()
    assert "62 plants, 60 of them finished" in again.stderr
    assert (tmp_path / "synthetic.csv").read_text() == content
    wrong = calibrate("--runs", "1")
    assert wrong.returncode == 2
    assert "--runs: expected a whole number of at least 2, came '1'" in wrong.stderr
