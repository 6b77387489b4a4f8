"""Seconds and size of one report of the Llama-3-8B shape: 512 prompts with answers, 33 layers of width 4,096.

python -m tests.benchmarks.bench_report
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipeline_common.memory import peak_memory
from pipeline_common.stages import REPOSITORY

if TYPE_CHECKING:
    from tests.benchmarks.__main__ import Timing

PROMPTS: Final = 512
LAYERS: Final = 33
WIDTH: Final = 4096
ANSWER: Final = 320
"""Characters of 64 tokens."""


def bench() -> list[Timing]:
    """The figures of a process of its own: imports of the stage counted, the making of its inputs not."""
    from tests.benchmarks.__main__ import Timing

    command = [sys.executable, "-m", "tests.benchmarks.bench_report"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY)
    told = json.loads(done.stdout)
    name = f"report, {PROMPTS} prompts, {LAYERS} layers: {told['bytes'] / 1e6:.2f} MB"
    return [Timing(name, told["wall_s"], told["cpu_s"], told["peak_mib"], "10 s wall, 3 MB")]


def make_findings() -> dict[str, Any]:
    """Measures and answers of that size."""
    from tests.analyze import made_evidence, made_measures

    axioms = [f"Axiom number {number}" for number in range(7)]
    geometry = (
        made_measures.score("overall", "pooled", PROMPTS // 2, 0.9, 0.8),
        *(made_measures.score("axiom", axiom, PROMPTS // 14, 1.1, 0.9) for axiom in axioms),
        *(
            made_measures.score("layer", str(layer), PROMPTS // 2, 0.2 + layer / 30, 0.2 + layer / 40)
            for layer in range(LAYERS)
        ),
    )
    count = PROMPTS // 2
    measures = made_measures.make_measures(
        geometry=geometry,
        judgement=made_measures.make_judgement(),
        n_safe=count,
        n_unsafe=count,
        scored_layers=(13, 14, 15),
    )
    (template, *_) = made_evidence.make_responses(judged=True)
    responses = [
        {
            **template,
            "prompt_id": f"row-{number:06d}",
            "model_role": role,
            "axiom": axioms[number % 7],
            "safety_label": "safe" if number % 2 else "unsafe",
            "prompt": f"Prompt number {number}. {'Words of a prompt. ' * 10}",
            "response": f"Answer number {number} of {role}. {'Words of an answer. ' * (ANSWER // 20)}",
            "refused": number % 2 == 0,
            "refusal_log_odds": (number % 97) / 10 - (role == "tuned") * (number % 5),
        }
        for number in range(PROMPTS)
        for role in ("base", "tuned")
    ]
    return {"measures": measures, "responses": responses}


def main() -> None:
    """Make the inputs, time the stage, print the figures as JSON."""
    from tests.analyze import made_evidence

    with tempfile.TemporaryDirectory() as folder:
        context = made_evidence.make_context(Path(folder), width=WIDTH, **make_findings())
        from jobs.analyze.stage import run

        wall, cpu = time.perf_counter(), time.process_time()
        outputs = run(context)
        told = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    told |= {"peak_mib": peak_memory()["peak_mib"], "bytes": outputs.summary["report_bytes"]}
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
