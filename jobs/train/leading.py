"""The processes of a training on one machine: started by its first one, and ended with it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from jobs.train.shares import count_processes
from pipeline_common.errors import TransientError
from pipeline_common.followers import Follower, Followers
from pipeline_common.logs import get_logger

if TYPE_CHECKING:
    from jobs.train.distributed import Team
    from jobs.train.order import Order
    from pipeline_common.context import Context

# After a failure they are blocked in waiting for each other, and have nothing to save.
_GRACE_S: Final = 3.0
_PARTING_S: Final = 60.0
_PUBLISHING_S: Final = 600.0
_LOOK_EVERY_S: Final = 2.0
_log = get_logger(__name__)


@contextmanager
def gather_team(context: Context, order: Order) -> Iterator[Team | None]:
    """Start this machine's other processes and open the way to all of them; none of them outlives this.

    Args:
        context: `member` says which machine this is.
        order: what is trained; its `leader`, `port` and ranks are filled in here.

    Yields:
        The team, not yet met; None when one process trains alone.

    Raises:
        PipelineError: that of another process, if one fails.
    """
    processes = count_processes(order.config)
    if processes == 1:
        yield None
        return
    from jobs.train.distributed import Team
    from jobs.train.distributed_store import LOCAL, Place

    member, count = context.member, order.config.runtime.gpus
    first = member.index * count
    leader = member.leader if member.nodes > 1 else LOCAL
    children: list[Followers] = []
    team = Team(
        Place(first, processes, 0, count),
        leader,
        member.port if member.nodes > 1 else 0,
        check=lambda: children[0].check() if children else None,
    )
    followers = Followers([_follower(context, order, team, leader, first, local) for local in range(1, count)])
    try:
        followers.start()
        children.append(followers)
        yield team
        team.part(None)
        # NCCL's connections are closed by both ends at once.
        team.close()
        _await_end(followers)
    except Exception as error:
        known = team.explain(error)
        team.part(known)
        if known is error:
            raise
        raise known from error
    finally:
        team.close()
        followers.stop(_GRACE_S)


def await_artifact(context: Context, patience_s: float = _PUBLISHING_S) -> None:
    """Stay until the leader's machine has published what was trained.

    An Indexed Job never starts a machine again that has ended well; a leader that fails after the last step starts
    again and needs all the others to meet.

    Raises:
        TransientError: it was not published in time, so that this machine starts again as well.
    """
    until = time.monotonic() + patience_s
    while context.store.read_manifest(context.planned.key) is None:
        if time.monotonic() > until:
            raise TransientError(
                f"machine 0 published no {context.planned.key} within {patience_s:.0f} s of the last step; starting "
                "again with it"
            )
        time.sleep(_LOOK_EVERY_S)


def _follower(context: Context, order: Order, team: Team, leader: str, first: int, local: int) -> Follower:
    rank = first + local
    told = order.model_copy(update={"leader": leader, "port": team.port, "rank": rank, "local_rank": local})
    path = context.work_dir / f"order-{local}.json"
    path.write_text(told.model_dump_json(), encoding="utf-8")
    return Follower(
        name=f"process {rank} of {team.place.processes}",
        command=[sys.executable, "-m", "jobs.train.follower", str(path)],
        log=context.files / "logs" / f"process-{rank}.log",
    )


def _await_end(followers: Followers) -> None:
    """Let the others end by themselves after their work."""
    until = time.monotonic() + _PARTING_S
    while followers.running and time.monotonic() < until:
        time.sleep(0.05)
