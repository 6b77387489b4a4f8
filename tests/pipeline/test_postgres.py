"""The same stages on Postgres: every row equal to the embedded database's, the last stage really run there."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

from pipeline_common.stages import REPOSITORY, STAGE_NAMES
from pipeline_common.tables import TABLES
from tests.pipeline.walking import clean_environment, run_ids

# When and where it was done differs; what was found does not.
INCIDENTAL = {
    # The configuration holds the output folder.
    "experiments": {"created_at", "config"},
    "stage_runs": {"state", "attempt", "started_at", "ended_at"},
}


def read_tables(path: Path, run_id: str) -> dict[str, list[dict[str, Any]]]:
    """Table -> a run's rows as plain SQLite gives them, without what differs from run to run."""
    with sqlite3.connect(path) as database:
        database.row_factory = sqlite3.Row
        return {
            name: [
                {key: value for key, value in dict(row).items() if key not in INCIDENTAL.get(name, set())}
                for row in database.execute(
                    f"SELECT * FROM {name} WHERE run_id = ? "
                    f"ORDER BY {', '.join(column.name for column in table.primary_key.columns)}",
                    (run_id,),
                )
            ]
            for name, table in TABLES.items()
        }


def command(module: str, output: Path, url: str, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, "--config", "tiny", f"runtime.output_dir={output}", *more],
        cwd=REPOSITORY,
        env={**clean_environment(), "DATABASE_URL": url, "ARTIFACTS_URI": str(output / "artifacts")},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_a_run_on_postgres_has_the_rows_of_the_run_on_sqlite(walks, empty_postgres, tmp_path):
    run_id = run_ids(walks.tiny.output)["tiny"]
    embedded = read_tables(walks.tiny.output / "centralized.db", run_id)
    assert all(embedded.values()), "a table without rows proves nothing"
    output, url = tmp_path / "output", empty_postgres.url
    shutil.copytree(walks.tiny.output / "artifacts", output / "artifacts")

    migrated = command("jobs.environment", output, url)
    assert migrated.returncode == 0, migrated.stderr
    analyzed = command("jobs.analyze", output, url, "--force")
    assert analyzed.returncode == 0, analyzed.stderr
    whole = command("jobs.pipeline", output, url)
    assert whole.returncode == 0, whole.stderr
    assert "Verdict: no damage found" in whole.stdout
    assert read_tables(output / "centralized.db", run_id) == embedded
    assert not (output / "results.db").exists()
    counted = dict(empty_postgres.execute("SELECT stage, state FROM stage_runs"))
    assert counted == {**dict.fromkeys(STAGE_NAMES, "cached"), "analyze": "done"}

    exported = command("jobs.export", output, url, "--run", run_id, "--to", str(tmp_path / "one.db"))
    assert exported.returncode == 0, exported.stderr
    assert read_tables(tmp_path / "one.db", run_id) == embedded
    for text in (migrated, analyzed, whole, exported):
        assert "p%40ss" not in text.stdout + text.stderr
