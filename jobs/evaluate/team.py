"""The processes of one evaluation: as many as `runtime.gpus` on each of `runtime.nodes` machines.

The stage's own process leads those of its machine and starts them; that of machine 0 leads all. A follower is
`python -m jobs.evaluate.shard REQUEST.json`, with a GPU of its own where there are GPUs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs.evaluate.exchange import Exchange, LeaderFinishedError
from jobs.evaluate.shared_tables import shared_tables
from jobs.evaluate.sharing import ROLES, Shard
from pipeline_common.config import Config
from pipeline_common.context import Context
from pipeline_common.errors import InputError
from pipeline_common.followers import Follower, Followers, following
from pipeline_common.logs import get_logger
from pipeline_common.members import Member
from pipeline_common.stages import find_stage, plan_run
from pipeline_common.termination import StopSignal
from pipeline_common.workplace import open_workplace

_log = get_logger(__name__)


@dataclass(frozen=True)
class Request:
    """What a follower is told; the address of the database and all keys come through the environment."""

    config: dict[str, Any]
    run_id: str
    fingerprint: str
    """Of the stage, which the follower must find as well."""
    attempt: int
    member: dict[str, Any]
    shard: int
    count: int
    parts: str
    """Folder that the processes of the leader's machine share."""
    work_dir: str
    """The follower's own."""
    log: str
    tables: dict[str, int]
    """Descriptors that the follower inherits."""


@dataclass(frozen=True)
class Team:
    """This process and those it started."""

    exchange: Exchange
    followers: Followers


@contextmanager
def gather_team(context: Context, device: str) -> Iterator[Team]:
    """Start this machine's other processes; when this is left, none of them runs any more.

    Args:
        context: of the stage.
        device: "cpu" or "cuda".

    Raises:
        ConfigError: this machine has fewer GPUs than `runtime.gpus`.
        PipelineError: a follower failed.
    """
    gpus, member = context.config.runtime.gpus, context.member
    parts = context.work_dir / "parts"
    own = Shard(member.index * gpus, member.nodes * gpus)
    devices = _choose_devices(gpus, device)
    if own.count > 1:
        _log.info(
            "%d processes read the prompts%s", own.count, f", on {member.nodes} machines" if member.nodes > 1 else ""
        )
    with shared_tables(ROLES if member.leads and gpus > 1 else (), context.work_dir) as tables:
        followers = [
            _describe_follower(context, Shard(own.index + place, own.count), parts, devices[place], tables)
            for place in range(1, gpus)
        ]
        exchange = Exchange(context, own, parts, tables)
        with following(followers) as started:
            exchange.look_after = started.insist
            yield Team(exchange, started)


def _choose_devices(gpus: int, device: str) -> list[dict[str, str]]:
    """Environment of each process of this machine."""
    if device != "cuda" or gpus == 1:
        return [{}] * gpus
    from jobs.evaluate.model import name_gpus

    return [{"CUDA_VISIBLE_DEVICES": name} for name in name_gpus(gpus)]


def _describe_follower(
    context: Context, shard: Shard, parts: Path, environment: dict[str, str], tables: Mapping[str, int]
) -> Follower:
    work_dir = context.work_dir / f"shard-{shard.index}"
    work_dir.mkdir(parents=True, exist_ok=True)
    log = context.files / "logs" / f"shard-{shard.index}.log"
    request = Request(
        config=context.config.model_dump(mode="json"),
        run_id=context.run_id,
        fingerprint=context.planned.fingerprint,
        attempt=context.attempt,
        member=asdict(context.member),
        shard=shard.index,
        count=shard.count,
        parts=str(parts),
        work_dir=str(work_dir),
        log=str(log),
        tables=dict(tables),
    )
    path = work_dir / "request.json"
    path.write_text(json.dumps(asdict(request)), encoding="utf-8")
    command = [sys.executable, "-m", "jobs.evaluate.shard", str(path)]
    return Follower(f"shard {shard.index} of {shard.count}", command, log, environment, tuple(tables.values()))


def read_request(path: Path) -> Request:
    """What the leader of this machine wrote."""
    return Request(**json.loads(path.read_text(encoding="utf-8")))


def join_team(request: Request) -> tuple[Context, Exchange]:
    """A follower's context, as its machine's stage has it.

    Raises:
        InputError: the stage cannot be what the leader has, or an input is gone.
    """
    config = Config.model_validate(request.config)
    plan = plan_run(config, request.run_id)
    planned = plan.stages[find_stage("evaluate").name]
    if planned.fingerprint != request.fingerprint:
        raise InputError(
            f"this process finds the stage {planned.fingerprint}, its leader {request.fingerprint}: code or data "
            "changed meanwhile; run the stage again"
        )
    place = open_workplace(config)
    inputs = {}
    for entry in planned.stage.inputs:
        manifest = place.store.read_manifest(plan.stages[entry.stage].key)
        if manifest is None:
            raise InputError(f"{plan.stages[entry.stage].key} is no longer in {place.store.uri}")
        inputs[entry.stage] = manifest
    stop = StopSignal()
    stop.install()
    work_dir = Path(request.work_dir)
    context = Context(
        config=config,
        plan=plan,
        planned=planned,
        store=place.store,
        database=place.database,
        inputs=inputs,
        work_dir=work_dir,
        files=work_dir / "files",
        stop=stop,
        attempt=request.attempt,
        member=Member(**request.member),
    )
    shard = Shard(request.shard, request.count)
    return context, Exchange(context, shard, Path(request.parts), request.tables)


@contextmanager
def reporting(context: Context, exchange: Exchange) -> Iterator[None]:
    """On a machine that does not lead: what stops this process is told to the leader, unless that is done already."""
    exchange.failures.forget()
    try:
        yield
    except LeaderFinishedError:
        _log.info("%s is there: this machine's part is not needed any more", context.planned.key)
    except Exception as error:
        exchange.failures.tell(error)
        raise
