"""How the activations of both roles scale with the GPUs of a machine: the stage's own dealing, exchange and merging.

`bench_gpu_activations --gpus N` calls `print_scaling`; the other processes are this module with a request.
Each builds the model on its own GPU and warms up; the clock runs from when all are ready until the leader holds the
merged activations of all prompts and both roles.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import torch

from jobs.evaluate.exchange import Exchange
from jobs.evaluate.merging import merge_activations
from jobs.evaluate.model import ModelPair, name_gpus
from jobs.evaluate.model_reading import EncodedPrompts
from jobs.evaluate.model_share import PairShare
from jobs.evaluate.parts import Part
from jobs.evaluate.selection import LabelledPrompt
from jobs.evaluate.sharing import Shard
from pipeline_common.config import load_config
from pipeline_common.followers import Follower, follower_main, following
from pipeline_common.provenance import REPOSITORY
from pipeline_common.stages import plan_run
from pipeline_common.workplace import open_workplace
from tests.made_stages import make_context

ROUNDS = 3


def open_share(folder: Path, shard: Shard, pair: ModelPair, count: int) -> tuple[Exchange, PairShare]:
    """A process's part of reading so many prompts."""
    from tests.benchmarks.bench_gpu_activations import made_prompts

    overrides = [f"runtime.output_dir={folder}", "evaluate.pooling=mean", "evaluate.sweep=flat"]
    config = load_config("llama3-8b", overrides)
    work_dir = folder / f"shard-{shard.index}"
    context = make_context(open_workplace(config), plan_run(config), "evaluate", work_dir)
    exchange = Exchange(context, shard, folder / "parts")
    labelled = [LabelledPrompt(f"prompt-{i:06d}", "none", "safe", "made", "") for i in range(count)]
    return exchange, PairShare(context, exchange, pair, EncodedPrompts(labelled, made_prompts(count), []))


def lead(folder: Path, count: int, pair: ModelPair, prompts: int) -> list[float]:
    """Seconds of each round, with the processes that were started beside this one."""
    exchange, share = open_share(folder, Shard(0, count), pair, prompts)
    share.settle(base_is_known=False)
    seconds = []
    for number in range(ROUNDS):
        exchange.gather(f"ready-{number}", exchange.contribute(f"ready-{number}", Part))
        torch.cuda.synchronize()
        started = time.perf_counter()
        # Everybody's parts of this round have names of their own: what was agreed on before is part of a name.
        exchange.settle(f"go-{number}", lambda number=number: number)  # type: ignore[misc]
        own = share.activations()
        for role in share.roles:
            parts = exchange.gather(f"activations-{role}", own[role], tensors=True)
            merge_activations(share.tables[role], parts, share.prompts.prompts, role)
        seconds.append(time.perf_counter() - started)
    return seconds


def follow(request: Path) -> None:
    """What the other processes do."""
    from tests.benchmarks.bench_gpu_activations import build_pair

    asked = json.loads(request.read_text(encoding="utf-8"))
    pair = build_pair(asked["layers"])
    shard = Shard(asked["shard"], asked["count"])
    exchange, share = open_share(Path(asked["folder"]), shard, pair, asked["prompts"])
    share.hear()
    for number in range(ROUNDS):
        exchange.contribute(f"ready-{number}", Part)
        exchange.hear(f"go-{number}")
        share.activations()


def print_scaling(gpus: int, prompts: int, layers: int) -> None:
    """Tokens per second of both roles together, by one GPU and by so many."""
    from tests.benchmarks.bench_gpu_activations import build_pair, made_prompts

    names = name_gpus(gpus)
    tokens = 2 * sum(len(ids) for ids in made_prompts(prompts))
    print(f"{gpus} x {torch.cuda.get_device_name()}, torch {torch.__version__}; {prompts} prompts, both roles\n")
    print("| GPUs | tokens/s, best of the later rounds | s | times one GPU |\n| ---: | ---: | ---: | ---: |")
    pair = build_pair(layers)
    single = 0.0
    for count in sorted({1, gpus}):
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            followers = []
            for index in range(1, count):
                request = folder / f"request-{index}.json"
                asked = {"folder": made, "shard": index, "count": count, "prompts": prompts, "layers": layers}
                request.write_text(json.dumps(asked), encoding="utf-8")
                command = [sys.executable, "-m", "tests.benchmarks.gpu_shards", str(request)]
                environment = {"CUDA_VISIBLE_DEVICES": names[index]}
                followers.append(Follower(f"shard {index}", command, folder / f"shard-{index}.log", environment))
            with following(followers) as started:
                # The first round warms up.
                seconds = min(lead(folder, count, pair, prompts)[1:])
                started.wait()
        single = single or seconds
        print(f"| {count} | {tokens / seconds:,.0f} | {seconds:.2f} | {single / seconds:.2f} |", flush=True)


if __name__ == "__main__":
    assert Path.cwd() == REPOSITORY or str(REPOSITORY) in sys.path
    sys.exit(follower_main(lambda: follow(Path(sys.argv[1]))))
