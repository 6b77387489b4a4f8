"""Child processes of a stage, one for each further GPU: they end with it, and a failure of one becomes its error.

A child dies with its parent however that dies (Linux: the kernel sends SIGKILL), gets SIGTERM when the parent leaves
`following`, and writes to a log of its own. It says why it failed through `follower_main`; of one that could not
(killed for memory, a crash in a library), the exit code and the last line of its log tell.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final

from pipeline_common.errors import PipelineError, error_class, exit_code_of
from pipeline_common.logs import get_logger
from pipeline_common.provenance import REPOSITORY

REASON_VARIABLE: Final = "FOLLOWER_REASON_FILE"
_PR_SET_PDEATHSIG: Final = 1
_POLL_S: Final = 0.2
_log = get_logger(__name__)


@dataclass(frozen=True)
class Follower:
    """What to start."""

    name: str
    """For messages: "shard 2 of 4"."""
    command: Sequence[str]
    """A module of this checkout is `[sys.executable, "-m", "jobs...", ...]`."""
    log: Path
    """Its stdout and stderr are appended here."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Beside this process's own, and over it."""
    descriptors: Sequence[int] = ()
    """Open files of this process that the child has as well, under the same numbers."""

    @property
    def reason_file(self) -> Path:
        """Where `follower_main` says why it failed."""
        return self.log.with_suffix(".reason.json")


class Followers:
    """The started children; made by `following`."""

    def __init__(self, followers: Sequence[Follower]) -> None:
        self._followers = tuple(followers)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._reported = False
        self._failure: PipelineError | None = None

    def start(self) -> None:
        """Start every child, in a process group of its own: a terminal's Ctrl-C reaches them through this process."""
        for follower in self._followers:
            follower.log.parent.mkdir(parents=True, exist_ok=True)
            follower.reason_file.unlink(missing_ok=True)
            with follower.log.open("ab") as log:
                # `-m` of this file: sets what the child inherits, then becomes the command. Doing so between fork and
                # exec instead is unsafe once this process has threads.
                process = subprocess.Popen(
                    [sys.executable, "-m", __name__, str(os.getpid()), *follower.command],
                    env=_environment(follower),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    process_group=0,
                    pass_fds=follower.descriptors,
                )
            self._processes.append(process)
            _log.debug("%s: process %d, log %s", follower.name, process.pid, follower.log)

    def check(self) -> None:
        """Raise the error of the first child that failed, once; those that run or are done are fine.

        Raises:
            PipelineError: of the class that the child's exit code names, with its reason.
        """
        if self._reported:
            return
        for follower, process in zip(self._followers, self._processes, strict=False):
            status = process.poll()
            if status:
                self._reported = True
                self._failure = describe_failure(follower, status)
                raise self._failure

    def insist(self) -> None:
        """As `check`, and once more what was raised before: a library may have caught what interrupted it.

        Raises:
            PipelineError: see `check`.
        """
        self.check()
        if self._failure is not None:
            raise self._failure

    @property
    def running(self) -> tuple[str, ...]:
        """Names of those that have not ended."""
        pairs = zip(self._followers, self._processes, strict=True)
        return tuple(follower.name for follower, process in pairs if process.poll() is None)

    def wait(self) -> None:
        """Until all are done.

        Raises:
            PipelineError: see `check`; the others are still running then.
        """
        while self.running:
            self.check()
            time.sleep(_POLL_S)
        self.check()

    def send(self, number: int) -> None:
        """Send a signal to those that run."""
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(number)

    def stop(self, grace_s: float) -> None:
        """SIGTERM, and SIGKILL to those that have not ended after `grace_s` seconds."""
        self._reported = True
        self.send(signal.SIGTERM)
        end = time.monotonic() + grace_s
        for follower, process in zip(self._followers, self._processes, strict=False):
            try:
                process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                _log.warning("%s did not end within %g s of SIGTERM; killing it", follower.name, grace_s)
                process.kill()
                process.wait()


@contextmanager
def following(followers: Sequence[Follower], *, grace_s: float = 20.0) -> Iterator[Followers]:
    """Start children; when this is left, however, none of them runs any more.

    While inside, a failed child interrupts this process's Python code with its error (not a call that is blocked in a
    library: where that can happen, let children do all the work and only `wait` here). Main thread only.

    Args:
        followers: what to start; none is fine.
        grace_s: seconds between SIGTERM and SIGKILL for those that still run at the end.

    Raises:
        PipelineError: see `Followers.check`.
    """
    started = Followers(followers)

    def on_child(_number: int, _frame: FrameType | None) -> None:
        started.check()

    previous = signal.signal(signal.SIGCHLD, on_child)
    try:
        started.start()
        started.check()
        yield started
    finally:
        signal.signal(signal.SIGCHLD, previous)
        started.stop(grace_s)


def follower_main(work: Callable[[], object]) -> int:
    """Run a child's work; what stops it is told to the parent, and the exit code is returned.

    Args:
        work: raises `PipelineError` for what it can explain.
    """
    try:
        work()
    except BaseException as error:  # noqa: BLE001 - whatever it is, the parent has to hear of it
        from pipeline_common.explaining import explain
        from pipeline_common.redaction import environment_secrets, scrub

        explained = explain(error) if isinstance(error, Exception) else error
        known = isinstance(explained, PipelineError)
        said = str(explained) if known else f"unexpected {type(error).__name__}: {error}"
        shown = said + "\n" if known else "".join(traceback.format_exception(error))
        sys.stderr.write(scrub(shown, environment_secrets()))
        if path := os.environ.get(REASON_VARIABLE):
            Path(path).write_text(json.dumps({"reason": scrub(said, environment_secrets())}), encoding="utf-8")
        return exit_code_of(explained)
    return 0


def describe_failure(follower: Follower, status: int) -> PipelineError:
    """The error of a child that ended so: `status` as `Popen.returncode`, not 0."""
    code = 128 - status if status < 0 else status
    kind = error_class(code)
    if follower.reason_file.is_file():
        reason = json.loads(follower.reason_file.read_text(encoding="utf-8"))["reason"]
        return kind(f"{follower.name}: {reason} (its log: {follower.log})")
    how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with exit code {status}"
    if status == -signal.SIGKILL:
        how += " (often: the machine's memory does not suffice)"
    lines = follower.log.read_text(encoding="utf-8", errors="replace").split("\n") if follower.log.is_file() else []
    last = next((line.strip() for line in reversed(lines) if line.strip()), "empty")
    return kind(f"{follower.name} {how}; the last line of its log {follower.log}: {last[:500]}")


def _environment(follower: Follower) -> dict[str, str]:
    # Children are modules of this checkout, wherever the command was typed.
    path = os.pathsep.join(entry for entry in (str(REPOSITORY), os.environ.get("PYTHONPATH", "")) if entry)
    return {**os.environ, "PYTHONPATH": path, **follower.environment, REASON_VARIABLE: str(follower.reason_file)}


def _become(parent: int, command: Sequence[str]) -> None:
    """Tie this process's life to its parent's and run the command in its place."""
    if sys.platform == "linux":
        # Survives exec; the kernel forgets it only for programs that change user.
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)
    os.execvp(command[0], list(command))  # noqa: S606 - the command is this project's own


if __name__ == "__main__":
    _become(int(sys.argv[1]), sys.argv[2:])
