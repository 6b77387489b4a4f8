"""Many pieces of work in few processes, results as they finish."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future

Task = TypeVar("Task")
Result = TypeVar("Result")


def run_tasks(
    pool: ProcessPoolExecutor, function: Callable[[Task], Result], tasks: Iterable[Task], processes: int
) -> Iterator[Result]:
    """Run `function` on every task; results come as they finish.

    Args:
        pool: with that many processes.
        function: picklable, as its results are.
        tasks: what to run, in order.
        processes: how many at a time.
    """
    waiting = iter(tasks)
    # No more than can run: the pool would start what waits in its own queue even when it is shut down.
    running: set[Future[Result]] = {pool.submit(function, task) for task in islice(waiting, processes)}
    while running:
        done, running = wait(running, return_when=FIRST_COMPLETED)
        running |= {pool.submit(function, task) for task in islice(waiting, len(done))}
        for finished in done:
            yield finished.result()
