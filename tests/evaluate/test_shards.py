"""An evaluation shared by processes and machines: the results of one process, and what happens when one fails."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobs.evaluate.model import name_gpus
from jobs.evaluate.parts import AREA
from pipeline_common.config import load_config
from pipeline_common.errors import ConfigError
from pipeline_common.execution import find_finished
from pipeline_common.provenance import REPOSITORY
from pipeline_common.stages import Plan
from pipeline_common.workplace import Workplace
from tests.evaluate.made_models import labelled_prompts, publish_inputs
from tests.evaluate.workshop import FILES
from tests.servers.buckets import serve_rclone

SECONDS = 600
"""Most that a run may take; some 10 where the machine has nothing else to do."""


class Machines:
    """Runs the stage as its command does, on one or several machines that share an artifact store."""

    def __init__(self, base: Path, adapter: Path, folder: Path) -> None:
        self.base, self.adapter, self.folder = base, adapter, folder
        self.started: list[subprocess.Popen[bytes]] = []

    def prepare(self, name: str, *more: str, store: str = "") -> tuple[list[str], Workplace, Plan]:
        """Settings of a run of that name, with its inputs published."""
        settings = [
            f"model.base={self.base}",
            "model.quantization=none",
            f"artifacts.uri={store or self.folder / name / 'store'}",
            "evaluate.prompts_per_class=64",
            "evaluate.resamples=200",
            "evaluate.permutations=199",
            "evaluate.max_new_tokens=12",
            # Several batches of each role and phase, so that there is something to share.
            "evaluate.batch_tokens=800",
            "evaluate.judge.min_digit_mass=0",
            "evaluate.judge.max_prompts=10",
            f"evaluate.judge.model={self.base}",
            f"runtime.peers_timeout_s={SECONDS}",
            *more,
        ]
        config = load_config("tiny", [*settings, f"runtime.output_dir={self.folder / name / 'machine-0'}"])
        place, plan = publish_inputs(config, self.base, self.adapter, judge=self.base, prompts=labelled_prompts())
        return settings, place, plan

    def start(self, name: str, settings: list[str], machine: int = 0, **environment: str) -> subprocess.Popen[bytes]:
        """`python -m jobs.evaluate` on a machine."""
        output = self.folder / name / f"machine-{machine}"
        output.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "jobs.evaluate", "--config", "tiny", *settings]
        with (output / "console").open("ab") as console:
            process = subprocess.Popen(
                [*command, f"runtime.output_dir={output}"],
                cwd=REPOSITORY,
                env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
                stdout=console,
                stderr=subprocess.STDOUT,
            )
        self.started.append(process)
        return process

    def console(self, name: str, machine: int = 0) -> str:
        """What a machine's process has said."""
        return (self.folder / name / f"machine-{machine}" / "console").read_text(encoding="utf-8")

    def finish(self, process: subprocess.Popen[bytes], name: str, machine: int = 0) -> None:
        """Wait for success."""
        assert process.wait(SECONDS) == 0, self.console(name, machine)


@pytest.fixture(scope="module")
def machines(base_folder: Path, adapter_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = Machines(base_folder, adapter_folder, tmp_path_factory.mktemp("shards"))
    yield made
    for process in made.started:
        process.kill()
        process.wait()


def open_result(place: Workplace, plan: Plan) -> Path:
    manifest = find_finished(place, plan.stages["evaluate"])
    assert manifest is not None
    return place.store.locate(manifest)


@pytest.fixture(scope="module")
def alone(machines: Machines) -> Path:
    settings, place, plan = machines.prepare("alone")
    machines.finish(machines.start("alone", settings), "alone")
    return open_result(place, plan)


def require_same(found: Path, alone: Path, shards: int) -> None:
    for name in FILES:
        assert (found / name).read_bytes() == (alone / name).read_bytes(), name
    assert read_manifest(found)["summary"]["shards"] == shards


def read_manifest(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "manifest.json").read_text(encoding="utf-8")))


def await_true(what: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + SECONDS
    while not what():
        assert process.poll() is None, "it ended first"
        assert time.monotonic() < end
        time.sleep(0.02)


def kept_parts(folder: Path) -> list[Path]:
    """Finished parts of a run's first machine."""
    return list(folder.glob(f"machine-0/work/evaluate-*/parts/{AREA}/*/manifest.json"))


def list_followers(process: subprocess.Popen[bytes]) -> list[int]:
    """The stage has other children, too, for a moment: git says which commit it is."""
    found = []
    for child in psutil.Process(process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if "jobs.evaluate.shard" in child.cmdline():
                found.append(child.pid)
    return found


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_the_same_bytes_from_three_processes(machines, alone):
    """Two are compared below, on two machines and after interruptions; four as well."""
    name = "gpus-3"
    settings, place, plan = machines.prepare(name, "runtime.gpus=3")
    machines.finish(machines.start(name, settings), name)
    found = open_result(place, plan)
    require_same(found, alone, 3)
    for index in (1, 2):
        log = (found / "logs" / f"shard-{index}.log").read_text(encoding="utf-8")
        assert f"answers of shard {index}: kept" in log
        assert f"scores of shard {index}: kept" in log
    assert not list((machines.folder / name / "store").glob(f"{AREA}/*"))


def test_the_same_bytes_from_two_machines_with_two_processes_each(machines, alone):
    settings, place, plan = machines.prepare("machines", "runtime.nodes=2", "runtime.gpus=2")
    found = run_two_machines(machines, "machines", settings, place, plan)
    require_same(found, alone, 4)
    assert [path.name for path in (machines.folder / "machines" / "store" / AREA).iterdir()] == []


def test_the_same_bytes_from_two_machines_and_a_bucket(machines, alone, monkeypatch):
    buckets = machines.folder / "buckets"
    (buckets / "shared").mkdir(parents=True)
    with serve_rclone(buckets) as server:
        for key, value in server.environment().items():
            monkeypatch.setenv(key, value)
        settings, place, plan = machines.prepare("bucket", "runtime.nodes=2", store="s3://shared/run")
        found = run_two_machines(machines, "bucket", settings, place, plan)
    require_same(found, alone, 2)
    assert not [path for path in (buckets / "shared").rglob("*") if AREA in path.parts and path.is_file()]


def run_two_machines(machines: Machines, name: str, settings: list[str], place: Workplace, plan: Plan) -> Path:
    both = [
        machines.start(name, settings, machine, JOB_COMPLETION_INDEX=str(machine), LEADER_ADDRESS="localhost")
        for machine in (1, 0)
    ]
    for machine, process in zip((1, 0), both, strict=True):
        machines.finish(process, name, machine)
    work = machines.folder / name / "machine-1" / "work"
    assert not [path for path in work.iterdir() if path.is_dir()], "nothing is left on the other machine"
    return open_result(place, plan)


def await_end(pid: int) -> None:
    end = time.monotonic() + 60
    while is_alive(pid):
        assert time.monotonic() < end, "a process has outlived its leader"
        time.sleep(0.02)


def await_follower(process: subprocess.Popen[bytes]) -> int:
    await_true(lambda: bool(list_followers(process)), process)
    (pid,) = list_followers(process)
    return pid


def test_whatever_ends_an_attempt_is_told_and_the_next_goes_on(machines, alone):
    settings, place, plan = machines.prepare("ended", "runtime.gpus=2")
    folder = machines.folder / "ended"

    first = machines.start("ended", settings)
    # The plan, the follower's activations, and the answers of both processes.
    await_true(lambda: len(kept_parts(folder)) >= 4, first)
    follower = await_follower(first)
    first.kill()
    first.wait()
    await_end(follower)

    second = machines.start("ended", settings)
    os.kill(await_follower(second), signal.SIGKILL)
    assert second.wait(SECONDS) == 1
    assert "evaluate: shard 1 of 2 was ended by SIGKILL (often: the machine's memory" in machines.console("ended")

    third = machines.start("ended", settings)
    follower = await_follower(third)
    third.terminate()
    assert third.wait(SECONDS) == 143
    await_end(follower)

    machines.finish(machines.start("ended", settings), "ended")
    found = open_result(place, plan)
    require_same(found, alone, 2)
    assert "answers: this shard's part was finished by an earlier attempt" in machines.console("ended")
    log = (found / "logs" / "shard-1.log").read_text(encoding="utf-8")
    assert "answers: this shard's part was finished by an earlier attempt" in log
    assert read_manifest(found)["provenance"]["attempt"] == 4


def test_a_machine_that_never_comes_is_named(machines):
    settings, _, _ = machines.prepare("missing", "runtime.nodes=2", "runtime.peers_timeout_s=2")
    process = machines.start("missing", settings, 0, JOB_COMPLETION_INDEX="0", LEADER_ADDRESS="localhost")
    assert process.wait(SECONDS) == 1
    said = machines.console("missing")
    assert "runtime.peers_timeout_s=2) for activations of shard 1 (machine 1); is that process still running" in said


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(ConfigError, match=r"^runtime.gpus=3, but this process sees 2 GPU\(s\).*set runtime.gpus=2 or"):
        name_gpus(3)


@pytest.mark.parametrize(
    ("visible", "named"), [("", ["0", "1"]), ("5,7,9", ["5", "7"]), ("GPU-a,GPU-b", ["GPU-a", "GPU-b"])]
)
def test_each_process_gets_one_of_the_gpus_that_this_one_may_use(monkeypatch, visible, named):
    monkeypatch.setattr("torch.cuda.device_count", lambda: max(2, visible.count(",") + 1))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert name_gpus(2) == named
