"""How the activations of both roles scale with the GPUs of a machine: the stage's own dealing, exchange and merging.

`bench_gpu_activations --gpus N` calls `print_scaling`; the other processes are this module with a request.
Each builds the model on its own GPU once and warms up; the clock runs from when all are ready until the leader holds
the merged activations of all prompts and both roles. Beside each speed: where every process's seconds went.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from jobs.evaluate.exchange import Exchange
from jobs.evaluate.merging import merge_activations
from jobs.evaluate.model import ModelPair, name_gpus
from jobs.evaluate.model_reading import EncodedPrompts
from jobs.evaluate.model_share import PairShare
from jobs.evaluate.parts import Part
from jobs.evaluate.selection import LabelledPrompt
from jobs.evaluate.shared_tables import shared_tables
from jobs.evaluate.sharing import ROLES, Shard
from pipeline_common.config import load_config
from pipeline_common.followers import Follower, follower_main, following
from pipeline_common.provenance import REPOSITORY
from pipeline_common.stages import plan_run
from pipeline_common.workplace import open_workplace
from tests.made_stages import make_context

ROUNDS = 3
"""The first warms up."""
COLUMNS = {
    "heard": "go heard",
    "base": "base",
    "tuned": "tuned",
    "last copies": "last copies",
    "kept": "handing over",
    "gathered": "gathering",
    "merged": "merging",
    "ended": "ended at",
    "until the first batch was stored": "first batch stored after",
    "storing, beside": "storing, beside",
}
"""Seconds that a process tells, and how they are called. What is between "heard" and "ended" follows one another."""


@dataclass(frozen=True)
class Case:
    """What is timed."""

    prompts: int
    batch_tokens: int | str


@dataclass(frozen=True)
class Round:
    """One measurement."""

    seconds: float
    processes: list[dict[str, float]]
    """What each one told, in the order of the shards."""


def open_share(
    folder: Path, shard: Shard, pair: ModelPair, case: Case, tables: Mapping[str, int]
) -> tuple[Exchange, PairShare]:
    """A process's part of reading so many prompts."""
    from tests.benchmarks.bench_gpu_activations import made_prompts

    folder = folder / f"{shard.count}-{case.prompts}-{case.batch_tokens}"
    config = load_config(
        "llama3-8b",
        [
            f"runtime.output_dir={folder}",
            "evaluate.pooling=mean",
            "evaluate.sweep=flat",
            f"evaluate.batch_tokens={case.batch_tokens}",
        ],
    )
    work_dir = folder / f"shard-{shard.index}"
    context = make_context(open_workplace(config), plan_run(config), "evaluate", work_dir)
    exchange = Exchange(context, shard, folder / "parts", tables)
    labelled = [LabelledPrompt(f"prompt-{i:06d}", "none", "safe", "made", "") for i in range(case.prompts)]
    prompts = EncodedPrompts(labelled, made_prompts(case.prompts), [])
    return exchange, PairShare(context, exchange, pair, prompts)


def lead(folder: Path, shard: Shard, pair: ModelPair, case: Case, tables: Mapping[str, int]) -> list[Round]:
    """Each round, with the processes that were started beside this one."""
    exchange, share = open_share(folder, shard, pair, case, tables)
    share.settle(base_is_known=False)
    rounds = []
    for number in range(ROUNDS):
        exchange.gather(f"ready-{number}", exchange.contribute(f"ready-{number}", Part))
        # Memory that nobody has touched, as in a stage, which measures once.
        share.tables.clear()
        gc.collect()
        for descriptor in tables.values():
            os.ftruncate(descriptor, 0)
        torch.cuda.synchronize()
        started = time.perf_counter()
        # Everybody's parts of this round have names of their own: what was agreed on before is part of a name.
        exchange.settle(f"go-{number}", lambda started=started: started)  # type: ignore[misc]
        told = {"heard": time.perf_counter() - started}
        own = share.activations()
        measured = time.perf_counter()
        parts = share.gather_activations(own)
        gathered = time.perf_counter()
        merge_activations(share.tables, parts, case.prompts)
        ended = time.perf_counter()
        told |= {**share.seconds, "gathered": gathered - measured, "merged": ended - gathered, "ended": ended - started}
        everybody = exchange.gather(f"told-{number}", Part([told]))
        rounds.append(Round(ended - started, [part.records[0] for part in everybody]))
    share.tables.clear()
    return rounds


def follow(request: Path) -> None:
    """What the other processes do."""
    from tests.benchmarks.bench_gpu_activations import build_pair

    asked = json.loads(request.read_text(encoding="utf-8"))
    pair = build_pair(asked["layers"])
    shard = Shard(asked["shard"], asked["count"])
    for case in (Case(**one) for one in asked["cases"]):
        exchange, share = open_share(Path(asked["folder"]), shard, pair, case, asked["tables"])
        share.hear()
        for number in range(ROUNDS):
            share.tables.clear()
            exchange.contribute(f"ready-{number}", Part)
            # The machine's clock, the same in all its processes.
            started = exchange.hear(f"go-{number}")
            told = {"heard": time.perf_counter() - started}
            kept = exchange.kept_s
            share.activations()
            told |= {**share.seconds, "kept": exchange.kept_s - kept, "ended": time.perf_counter() - started}
            exchange.contribute(f"told-{number}", lambda told=told: Part([told]))  # type: ignore[misc]


@contextmanager
def started_followers(
    folder: Path, count: int, layers: int, cases: Sequence[Case]
) -> Iterator[tuple[Shard, Mapping[str, int]]]:
    """This process's place among so many, with the others started, and the tables that they share."""
    names = name_gpus(count)
    with shared_tables(ROLES if count > 1 else (), folder) as tables:
        followers = []
        for index in range(1, count):
            request = folder / f"request-{index}.json"
            asked = {
                "folder": str(folder),
                "shard": index,
                "count": count,
                "layers": layers,
                "cases": [asdict(case) for case in cases],
                "tables": dict(tables),
            }
            request.write_text(json.dumps(asked), encoding="utf-8")
            command = [sys.executable, "-m", "tests.benchmarks.gpu_shards", str(request)]
            environment = {"CUDA_VISIBLE_DEVICES": names[index]}
            log = folder / f"shard-{index}.log"
            followers.append(Follower(f"shard {index}", command, log, environment, tuple(tables.values())))
        with following(followers) as started:
            yield Shard(0, count), tables
            started.wait()


def print_scaling(gpus: int, prompts: Sequence[int], layers: int, budgets: Sequence[int | str]) -> None:
    """Tokens per second of both roles together, by one GPU and by so many, and where the seconds went."""
    from tests.benchmarks.bench_gpu_activations import build_pair, made_prompts

    cases = [Case(count, budget) for count in prompts for budget in budgets]
    print(f"{gpus} x {torch.cuda.get_device_name()}, torch {torch.__version__}; both roles\n")
    pair = build_pair(layers)
    rows, details = [], []
    single: dict[Case, float] = {}
    for count in sorted({1, gpus}):
        with (
            tempfile.TemporaryDirectory() as made,
            started_followers(Path(made), count, layers, cases) as (shard, tables),
        ):
            for case in cases:
                # The first round warms up.
                best = min(lead(Path(made), shard, pair, case, tables)[1:], key=lambda one: one.seconds)
                single.setdefault(case, best.seconds)
                tokens = 2 * sum(len(ids) for ids in made_prompts(case.prompts))
                name = f"{case.prompts:,} | {case.batch_tokens} | {count}"
                speed, times = tokens / best.seconds, single[case] / best.seconds
                rows.append(f"| {name} | {speed:,.0f} | {best.seconds:.3f} | {times:.2f} |")
                print(rows[-1], flush=True)
                details += [f"| {name} | {index} | {_describe(told)} |" for index, told in enumerate(best.processes)]
    print("\n| prompts | batch tokens | GPUs | tokens/s, best of the later rounds | s | times one GPU |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    print("\n".join(rows))
    print(f"\n| prompts | batch tokens | GPUs | process | {' | '.join(COLUMNS.values())} |")
    print("| ---: | ---: | ---: | ---: |" + " ---: |" * len(COLUMNS))
    print("\n".join(details), flush=True)


def _describe(told: Mapping[str, Any]) -> str:
    return " | ".join(f"{told[name]:.3f}" if name in told else "" for name in COLUMNS)


if __name__ == "__main__":
    assert Path.cwd() == REPOSITORY or str(REPOSITORY) in sys.path
    sys.exit(follower_main(lambda: follow(Path(sys.argv[1]))))
