"""What the orchestrator costs while it waits, and how fast it goes on: the real process against a made API server.

python -m tests.benchmarks.bench_orchestrator [--wait 250]
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from pipeline_common.stages import REPOSITORY, STAGE_NAMES
from tests.pipeline.cluster.running import Cluster, wait_for
from tests.servers.kubernetes_api import KubernetesApi
from tests.servers.stage_scripts import Step

_HOUR_S = 3600.0
_WATCH_S = 120.0


@dataclass(frozen=True)
class Figure:
    """One number and its bar."""

    name: str
    value: str
    limit: str

    def row(self) -> str:
        return f"| {self.name} | {self.value} | {self.limit} |"


def bench(wait_s: float = 250.0) -> list[Figure]:
    """All figures; takes `wait_s` and some seconds, nearly all of it asleep."""
    return [*_gaps(), *_waiting(wait_s), _help()]


def _gaps() -> list[Figure]:
    """Seconds from the end of one stage's Job to the request that creates the next stage's."""
    with tempfile.TemporaryDirectory() as folder, KubernetesApi() as api:
        scripts = {stage: [Step("exit", seconds=1.0)] for stage in STAGE_NAMES}
        cluster = Cluster(api, Path(folder), scripts)
        done = cluster.run()
        assert done.returncode == 0, done.stderr
        created = [request.at for request in api.requests if request.verb == "create"]
        ended = [cluster.kubelet.ended_at[stage] for stage in STAGE_NAMES]
        gaps = [start - end for end, start in zip(ended, created[1:], strict=False)]
    assert len(gaps) == len(STAGE_NAMES) - 1
    shown = ", ".join(f"{gap:.2f}" for gap in gaps)
    return [
        Figure("from a Job's end to the next Job's creation, worst of four", f"{max(gaps):.2f} s ({shown})", "1.5 s")
    ]


def _waiting(wait_s: float) -> list[Figure]:
    """Memory, processor and requests of an orchestrator whose stage waits for a GPU."""
    with tempfile.TemporaryDirectory() as folder, KubernetesApi() as api:
        cluster = Cluster(api, Path(folder), {"environment": [Step("unschedulable", seconds=10 * wait_s)]})
        process = cluster.start()
        wait_for(lambda: api.count("list", "events") > 0, "the wait has begun")
        before, began, first = _cpu_s(process.pid), time.monotonic(), len(api.requests)
        time.sleep(wait_s)
        cpu = (_cpu_s(process.pid) - before) / (time.monotonic() - began)
        requests = api.requests[first:]
        memory = _memory_mib(process.pid)
        process.kill()
        process.communicate()
    # Watches grow to their full length; from then on every round is the same.
    last = max(index for index, request in enumerate(requests) if request.verb == "watch")
    rounds = [index for index, request in enumerate(requests) if request.verb == "watch"]
    per_round = last - rounds[-2] if len(rounds) > 1 else last
    hour = len(requests) + (_HOUR_S - wait_s) / _WATCH_S * per_round
    return [
        Figure("memory while waiting (RSS)", f"{memory:.0f} MiB", "80 MiB"),
        Figure("processor while waiting", f"{cpu:.4f} cores", "0.05 cores"),
        Figure(
            "API requests in an hour of waiting for a GPU",
            f"{hour:.0f} ({len(requests)} counted in {wait_s:.0f} s, then {per_round} every {_WATCH_S:.0f} s)",
            "200",
        ),
    ]


def _help() -> Figure:
    """Seconds of processor of the help, best of five."""
    command = [sys.executable, "-m", "jobs.pipeline", "--help"]
    best = float("inf")
    wall = float("inf")
    for _ in range(5):
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        wall = min(wall, time.perf_counter() - began)
    return Figure("`python -m jobs.pipeline --help`", f"{wall:.2f} s ({best:.2f} s CPU)", "0.3 s")


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def print_figures(figures: list[Figure]) -> None:
    """The table, in Markdown."""
    print("| orchestrator | measured | at most |\n| --- | --- | --- |")
    print("\n".join(figure.row() for figure in figures))


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wait", type=float, default=250.0, help="seconds to watch it wait")
    print_figures(bench(parser.parse_args().wait))


if __name__ == "__main__":
    main()
