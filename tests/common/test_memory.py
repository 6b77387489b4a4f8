"""Peaks of memory are those of the process itself, however large the one is that started it."""

from __future__ import annotations

import json
import subprocess
import sys

from pipeline_common.stages import REPOSITORY

MIB = 1 << 20
LARGE = 300
"""MiB of the process that starts the others."""
# A bytes object of zeros would be memory that nobody has touched.
HOLDS = "held = b'x' * ({} << 20); del held"
TELLS = "from pipeline_common.memory import peak_memory; print(peak_memory()['peak_mib'])"
STARTED_BY_A_LARGE_ONE = f"""
import json, subprocess, sys
held = b"x" * ({LARGE} << 20)
print(json.dumps([float(subprocess.check_output([sys.executable, "-c", one])) for one in sys.argv[1:]]))
"""
MEASURED_BY_A_LARGE_ONE = f"""
import json, sys
from tests.benchmarks.__main__ import measure
held = b"x" * ({LARGE} << 20)
print(json.dumps([measure("", "", sys.executable, "-c", one).peak_mib for one in sys.argv[1:]]))
"""


def run(script: str, *commands: str) -> list[float]:
    done = subprocess.run(
        [sys.executable, "-c", script, *commands], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    found: list[float] = json.loads(done.stdout)
    return found


def test_a_manifests_peak_is_the_stages_own():
    idle, busy = run(STARTED_BY_A_LARGE_ONE, TELLS, f"{HOLDS.format(100)}; {TELLS}")
    assert 5 < idle < 60
    # It is gone when the process is asked, and counted.
    assert idle + 95 < busy < idle + 110


def test_a_benchmarks_peak_is_the_commands_own():
    idle, busy, within = run(
        MEASURED_BY_A_LARGE_ONE,
        "pass",
        HOLDS.format(100),
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLDS.format(100)!r}])",
    )
    assert 5 < idle < 30
    assert idle + 95 < busy < idle + 110
    # Of the largest single process: what a command starts counts, and no two are added.
    assert abs(within - busy) < 10


def test_a_command_that_fails_ends_the_benchmark_with_its_words():
    script = "import sys; from tests.benchmarks.__main__ import measure; measure('it', '', sys.executable, '-c', '1/0')"
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("it: exit 1\n")
    assert "ZeroDivisionError" in done.stderr
