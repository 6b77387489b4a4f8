"""One of the processes that train along: `python -m jobs.train.follower ORDER.json`, started by the stage itself."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pipeline_common.errors import PipelineError, TerminatedError
from pipeline_common.logs import get_logger

if TYPE_CHECKING:
    from jobs.train.distributed import Team
    from jobs.train.order import Order
    from pipeline_common.termination import StopSignal

# When one process dies, the others' connections break. They leave it to the first one to say so.
_DEFERENCE_S: Final = 20.0
_log = get_logger(__name__)


def follow(order: Order, team: Team, stop: StopSignal) -> None:
    """Do one process's part of a training; nothing is written.

    Args:
        order: what is trained.
        team: the way to the others, not yet met.
        stop: SIGTERM.

    Raises:
        TerminatedError: SIGTERM before the training began, or during an evaluation.
        PipelineError: as `fine_tune`.
    """
    from jobs.train.arithmetic import choose_arithmetic

    placement, optimizer = choose_arithmetic(order.config, order.local_rank, _log.warning)

    from jobs.train.materials import build_recipe, load_models
    from jobs.train.quiet import quiet_libraries
    from jobs.train.sft import fine_tune

    quiet_libraries()
    recipe = build_recipe(order, placement, optimizer, _log.warning, team=team)
    fine_tune(*load_models(order, placement), recipe, None, stop)


def main(path: Path) -> None:
    """Follow the order in a file."""
    from jobs.train.distributed import Team
    from jobs.train.distributed_store import Place
    from jobs.train.order import Order
    from pipeline_common.logs import start_console
    from pipeline_common.termination import StopSignal

    stop = StopSignal()
    stop.install()
    start_console("debug", "train")
    order = Order.model_validate_json(path.read_text(encoding="utf-8"))
    runtime = order.config.runtime
    place = Place(order.rank, runtime.gpus * runtime.nodes, order.local_rank, runtime.gpus)
    team = Team(place, order.leader, order.port)
    try:
        follow(order, team, stop)
    except TerminatedError:
        if not team.stopping:
            raise
    except PipelineError:
        raise
    except Exception:
        _log.exception("%s failed", place.describe())
        if team.met:
            time.sleep(_DEFERENCE_S)
        raise
    team.close()


if __name__ == "__main__":
    from pipeline_common.followers import follower_main

    sys.exit(follower_main(lambda: main(Path(sys.argv[1]))))
