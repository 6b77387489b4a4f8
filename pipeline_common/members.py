"""Which machine of a stage's several this process runs on.

With `runtime.nodes` above 1 the stages that use a GPU run once on every machine: as an Indexed Job on Kubernetes, or as
the same command started by hand. Member 0 leads: it takes the locks, writes rows and publishes; the others only work.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pipeline_common.errors import ConfigError

if TYPE_CHECKING:
    from pipeline_common.config import Config
    from pipeline_common.stages import Stage

# Kubernetes sets it in the pods of an Indexed Job.
INDEX_VARIABLE: Final = "JOB_COMPLETION_INDEX"
LEADER_VARIABLE: Final = "LEADER_ADDRESS"
PORT_VARIABLE: Final = "LEADER_PORT"
DEFAULT_PORT: Final = 29500
_HIGHEST_PORT: Final = 65535


@dataclass(frozen=True)
class Member:
    """One machine of a stage."""

    index: int = 0
    """0 ... nodes - 1."""
    nodes: int = 1
    leader: str = "localhost"
    """Host name of member 0."""
    port: int = DEFAULT_PORT
    """TCP port on which the leader awaits the others."""

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes."""
        return self.index == 0


def find_member(config: Config, stage: Stage, environment: Mapping[str, str] | None = None) -> Member:
    """This process's place among `runtime.nodes` machines, from its environment.

    Args:
        config: `runtime.nodes` is read.
        stage: one without a GPU has a single machine.
        environment: None = the process's own.

    Raises:
        ConfigError: there are several machines and the environment does not say which this is, or where the leader is.
    """
    variables = os.environ if environment is None else environment
    nodes = config.runtime.nodes
    if nodes == 1 or not stage.needs_gpu:
        return Member()
    index = _number(variables, INDEX_VARIABLE, None, nodes - 1, nodes)
    leader = variables.get(LEADER_VARIABLE, "")
    if not leader:
        raise ConfigError(
            f"runtime.nodes={nodes} needs the host name of machine 0 in {LEADER_VARIABLE}, which is not set"
        )
    return Member(
        index=index,
        nodes=nodes,
        leader=leader,
        port=_number(variables, PORT_VARIABLE, DEFAULT_PORT, _HIGHEST_PORT, nodes),
    )


def _number(variables: Mapping[str, str], name: str, default: int | None, highest: int, nodes: int) -> int:
    text = variables.get(name, "" if default is None else str(default))
    if not text.isascii() or not text.isdigit() or int(text) > highest:
        raise ConfigError(
            f"runtime.nodes={nodes} needs a number from 0 to {highest} in {name}; it is {text!r}"
            if text
            else f"runtime.nodes={nodes} needs this machine's number, 0 to {highest}, in {name}, which is not set"
        )
    return int(text)


ALONE: Final = Member()
