"""make bench: time the commands people wait for, as whole processes, and print a Markdown table.

python -m tests.benchmarks [--only help,run,prepare,metric,cost,report,database,bucket,orchestrator]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass

from pipeline_common.provenance import commit, installed_version
from pipeline_common.stages import REPOSITORY, STAGE_NAMES

_LAUNCHER = REPOSITORY / "tests" / "benchmarks" / "launcher.py"


@dataclass(frozen=True)
class Timing:
    """One command: seconds of wall and CPU (descendants included), MiB of the largest single process."""

    name: str
    wall_s: float
    cpu_s: float
    peak_mib: float
    limit: str

    def row(self) -> str:
        return f"| {self.name} | {self.wall_s:.2f} | {self.cpu_s:.2f} | {self.peak_mib:.0f} | {self.limit} |"


def measure(name: str, limit: str, *command: str) -> Timing:
    """Run a command to its end; a failure ends the benchmark."""
    launched = (sys.executable, "-I", "-S", str(_LAUNCHER), *command)
    done = subprocess.run(launched, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{name}: exit {done.returncode}\n{done.stderr}")
    return Timing(name, limit=limit, **json.loads(done.stdout))


def bench_help() -> list[Timing]:
    """Cold start: the best of five, since the first one reads the disk."""
    timings = []
    for stage in (*STAGE_NAMES, "pipeline"):
        module = f"jobs.{stage}"
        tries = [
            measure(f"`python -m {module} --help`", "0.3 s CPU", sys.executable, "-m", module, "--help")
            for _ in range(5)
        ]
        timings.append(min(tries, key=lambda timing: timing.cpu_s))
    return timings


def bench_run() -> list[Timing]:
    """`tiny` from nothing, again, and `tiny-harmful` beside it."""
    with tempfile.TemporaryDirectory() as folder:
        output = f"runtime.output_dir={folder}/output"

        def pipeline(profile: str) -> tuple[str, ...]:
            return (sys.executable, "-m", "jobs.pipeline", "--config", profile, output)

        return [
            measure("`make run`, from nothing", "150 s wall, 2048 MiB", *pipeline("tiny")),
            measure("`make run`, again", "5 s wall", *pipeline("tiny")),
            measure("`make run PROFILE=tiny-harmful`, after it", "", *pipeline("tiny-harmful")),
        ]


def bench_prepare() -> list[Timing]:
    """`prepare` on 50,000 generated rows of the real column shapes."""
    from tests.benchmarks import bench_prepare as rows

    return rows.bench(50_000)


def bench_metric() -> list[Timing]:
    """All of the metric for one pair of the Llama-3-8B shape."""
    from tests.benchmarks import bench_metric as scores

    return scores.bench()


def bench_report() -> list[Timing]:
    """The report of a run of the Llama-3-8B shape."""
    from tests.benchmarks import bench_report as pages

    return pages.bench()


def bench_database() -> list[Timing]:
    """100,000 metric rows into a Postgres server, and exports of a million."""
    from tests.benchmarks import bench_database as rows

    return rows.bench()


def bench_bucket() -> list[Timing]:
    """Large and small files into a bucket and back, against boto3 on its own and the bare server."""
    from tests.benchmarks import bench_bucket as transfers

    return transfers.bench()


def bench_orchestrator() -> list[Timing]:
    """The orchestrator while it waits, and between two Jobs; it has other figures, and a table of its own."""
    from tests.benchmarks import bench_orchestrator as waiting

    waiting.print_figures(waiting.bench())
    print()
    return []


def main() -> None:
    """Run the groups asked for and print the table."""
    groups = {
        "help": bench_help,
        "run": bench_run,
        "prepare": bench_prepare,
        "metric": bench_metric,
        "report": bench_report,
        "database": bench_database,
        "bucket": bench_bucket,
        "orchestrator": bench_orchestrator,
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join([*groups, "cost"]), help="groups to run, joined by commas")
    wanted = parser.parse_args().only.split(",")
    timings = [timing for name in wanted if name != "cost" for timing in groups[name]()]
    code = commit()
    print(
        f"Commit {str(code['commit'])[:12]}{' (dirty)' if code['dirty'] else ''}, Python {platform.python_version()}, ",
        end="",
    )
    print(f"torch {installed_version('torch')}, {os.cpu_count()} cores, {platform.machine()}.\n")
    if timings:
        print("| command | wall s | CPU s | peak MiB | at most |\n| --- | --- | --- | --- | --- |")
        print("\n".join(timing.row() for timing in timings), end="\n\n")
    if "cost" in wanted:
        from tests.benchmarks.bench_metric import cost_table

        for line in cost_table():
            print(line, flush=True)


if __name__ == "__main__":
    main()
