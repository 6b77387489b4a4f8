"""How a step's rows are divided over the processes that train together: arithmetic, no library.

A step holds the same rows whatever their number, so that the losses are those of one process.

Legend: P processes, R rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline_common.errors import ConfigError

if TYPE_CHECKING:
    from pipeline_common.config import Config, TrainConfig


def count_processes(config: Config) -> int:
    """P = `runtime.gpus` x `runtime.nodes`.

    Raises:
        ConfigError: the rows of a step cannot be divided by it, or the base by it or with this engine.
    """
    train, runtime = config.train, config.runtime
    processes = runtime.gpus * runtime.nodes
    if train.sharding == "full" and processes == 1:
        raise ConfigError("train.sharding=full divides the base among processes; set runtime.gpus or runtime.nodes")
    if train.sharding == "full" and train.engine == "flat":
        raise ConfigError(
            "train.sharding=full needs train.engine=plain (or auto): every process must make as many passes"
        )
    rows = train.batch_size * train.gradient_accumulation
    if rows % processes:
        fitting = ", ".join(str(number) for number in range(1, rows + 1) if rows % number == 0)
        raise ConfigError(
            f"runtime.gpus={runtime.gpus} x runtime.nodes={runtime.nodes} are {processes} processes, but a step's "
            f"{rows} rows (train.batch_size={train.batch_size} x train.gradient_accumulation="
            f"{train.gradient_accumulation}) can be divided by {fitting} only; change one of the four"
        )
    return processes


def count_passes(train: TrainConfig, processes: int) -> int:
    """Forward passes of each process in a step of padded batches: as few as hold at most `batch_size` rows each."""
    own = train.batch_size * train.gradient_accumulation // processes
    return next(passes for passes in range(1, own + 1) if own % passes == 0 and own // passes <= train.batch_size)


def deal(rows: int, processes: int) -> list[list[int]]:
    """Row numbers 0 ... R - 1 for each process in turn; their numbers differ by one at most."""
    return [list(range(process, rows, processes)) for process in range(processes)]


def balance(lengths: Sequence[int], processes: int) -> list[list[int]]:
    """Row numbers for each process so that all have about the same number of tokens: the longest row first, always to
    the process with the fewest tokens so far.

    Args:
        lengths: tokens of the R rows.
        processes: P.

    Returns:
        P lists in the rows' order; some are empty when R < P.
    """  # noqa: D205 - one sentence
    loads = [0] * processes
    shares: list[list[int]] = [[] for _ in range(processes)]
    for row in sorted(range(len(lengths)), key=lambda number: (-lengths[number], number)):
        lightest = loads.index(min(loads))
        loads[lightest] += lengths[row]
        shares[lightest].append(row)
    return [sorted(share) for share in shares]
