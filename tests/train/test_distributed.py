"""Several processes against one: the same rows, the same losses, one set of artifacts, also after kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from jobs.train.checkpoints import MARKER
from jobs.train.leading import await_artifact
from pipeline_common.config import load_config
from pipeline_common.errors import ConfigError, TransientError
from pipeline_common.stages import REPOSITORY
from tests.made_stages import make_context, publish_stage
from tests.servers.ports import free_port
from tests.train.conftest import Prepared
from tests.train.made_inputs import list_overrides, publish_inputs
from tests.train.made_runs import DEADLINE_S, comparable_rows, disturb, facts_of, losses, signal_after

# Sums are made in another order, and float32 rounds to 6e-8: measured 2e-7 after 16 steps.
ROUNDING = 1e-5


@pytest.mark.parametrize(
    ("processes", "engine"),
    [(2, ("train.engine=plain",)), (4, ("train.engine=flat", "train.tokens_per_batch=150"))],
    ids=["plain", "flat"],
)
def test_several_processes_train_as_one(
    processes: int,
    engine: tuple[str, ...],
    model_folder: Path,
    train_table: pa.Table,
    validation_table: pa.Table,
    tmp_path: Path,
) -> None:
    """89 rows are 11 steps of 8 and one of a single row, in which others have none; then a second epoch begins."""
    runs = []
    for number in (1, processes):
        settings = list_overrides(
            model_folder,
            tmp_path / str(number),
            "train.lora_dropout=0",
            "train.eval_steps=6",
            f"runtime.gpus={number}",
            *engine,
        )
        made = publish_inputs(load_config("tiny", settings), train_table.slice(0, 89), validation_table)
        runs.append(Prepared(settings, *made).train())
    alone, together = runs

    assert together.manifest.fingerprint != ""
    assert losses(together) == pytest.approx(losses(alone), rel=ROUNDING)
    facts, others = facts_of(together), facts_of(alone)
    assert (facts["processes"], facts["machines"], facts["backend"]) == (processes, 1, "gloo")
    assert (others["processes"], others["machines"], others["backend"]) == (1, 1, None)
    assert facts["trained_tokens"] == others["trained_tokens"]
    assert (facts["engine"], facts["steps"]) == (others["engine"], 16)
    names = {entry.path for entry in together.manifest.files} - {entry.path for entry in alone.manifest.files}
    assert names == {f"logs/process-{number}.log" for number in range(1, processes)}


def test_a_divided_base_is_the_same_base(prepare_run: Callable[..., Prepared]) -> None:
    """FSDP: two processes keep half of the layers each, and train as one does with all of them."""
    alone = prepare_run("train.lora_dropout=0").train()
    divided = prepare_run("train.lora_dropout=0", "runtime.gpus=2", "train.sharding=full").train()

    assert losses(divided) == pytest.approx(losses(alone), rel=ROUNDING)
    facts, others = facts_of(divided), facts_of(alone)
    # 2 layers of 64 x 64 (q, o), 32 x 64 (k, v) and 3 of 64 x 128, two weights to a byte, and two norms of 64 float32;
    # each process keeps half. The embedding (384 x 64, also the head) and the last norm are whole in both.
    layers = 2 * ((2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 128) // 2 + 2 * 64 * 4)
    rest = (384 * 64 + 64) * 4
    assert (others["base_bytes"], facts["base_bytes"]) == (layers + rest, layers // 2 + rest)
    assert (facts["sharding"], others["sharding"]) == ("full", "none")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("runtime.gpus=3",), r"3 processes, but a step's 8 rows .* can be divided by 1, 2, 4, 8 only"),
        (("train.sharding=full",), "divides the base among processes; set runtime.gpus"),
        (("train.sharding=full", "runtime.gpus=2", "train.engine=flat"), "needs train.engine=plain"),
    ],
)
def test_settings_that_do_not_fit(
    prepare_run: Callable[..., Prepared], settings: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare_run(*settings).train()


# Long enough that the processes are still training when the signal arrives; with dropout.
LONG = ("train.max_steps=200", "train.epochs=20", "train.save_steps=5", "train.engine=flat", "runtime.gpus=2")


def test_whatever_is_killed_all_end_and_the_next_attempt_resumes_to_the_same_bytes(
    prepare_run: Callable[..., Prepared],
) -> None:
    undisturbed, prepared = prepare_run(*LONG).train(), prepare_run(*LONG)

    code, message = disturb(prepared, 10, signal.SIGKILL, follower=True)
    assert code == 1, message
    assert "process 1 of 2 was ended by SIGKILL" in message.splitlines()[-1]

    code, message = disturb(prepared, 40, signal.SIGTERM, follower=True)
    assert code == 143, message
    assert "stopped by SIGTERM after step" in message.splitlines()[-1]

    code, message = disturb(prepared, 70, signal.SIGTERM, follower=False)
    assert code == 143, message
    assert "stopped by SIGTERM after step" in message.splitlines()[-1]

    code, message = disturb(prepared, 100, signal.SIGKILL, follower=False)
    assert code == -signal.SIGKILL, message

    resumed = prepared.train()
    assert 100 <= facts_of(resumed)["resumed_from_step"] < 200
    assert facts_of(resumed)["attempt"] == 5
    assert resumed.adapter_digests() == undisturbed.adapter_digests()
    assert comparable_rows(resumed) == comparable_rows(undisturbed)


def start_machine(prepared: Prepared, index: int, folder: Path, port: int) -> subprocess.Popen[str]:
    """The stage on one of two machines, which share the artifacts and nothing else."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "ARTIFACTS_URI": prepared.place.store.uri,
        "JOB_COMPLETION_INDEX": str(index),
        "LEADER_ADDRESS": "localhost",
        "LEADER_PORT": str(port),
    }
    own = [f"runtime.output_dir={folder}"] if index else []
    command = [sys.executable, "-m", "jobs.train", "--config", "tiny", *prepared.overrides, *own]
    return subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_two_machines_train_as_one(prepare_run: Callable[..., Prepared], tmp_path: Path) -> None:
    alone = prepare_run("train.lora_dropout=0").train()
    shared = prepare_run("train.lora_dropout=0", "runtime.nodes=2")
    port = free_port()
    machines = [start_machine(shared, index, tmp_path / "other", port) for index in (0, 1)]
    for machine in machines:
        message = machine.communicate(timeout=DEADLINE_S)[1]
        assert machine.returncode == 0, message

    together = shared.train()  # finds what the leader has published
    assert losses(together) == pytest.approx(losses(alone), rel=ROUNDING)
    facts = facts_of(together)
    assert (facts["processes"], facts["machines"], facts["backend"]) == (2, 2, "gloo")
    assert not list((tmp_path / "other").rglob("results.db")), "a machine that does not lead writes no rows"
    assert not list((tmp_path / "other").rglob("manifest.json"))


def test_the_loss_of_a_machine_is_told_and_both_go_on_together(
    prepare_run: Callable[..., Prepared], tmp_path: Path
) -> None:
    shared = prepare_run("train.max_steps=100", "train.epochs=20", "train.save_steps=5", "runtime.nodes=2")
    port = free_port()
    leader, other = (start_machine(shared, index, tmp_path / "other", port) for index in (0, 1))
    signal_after(other, shared.checkpoints / "checkpoint-10" / MARKER, signal.SIGKILL)
    said = leader.communicate(timeout=DEADLINE_S)[1]
    assert leader.returncode == 1, said
    assert "machine 1" in said.splitlines()[-1]

    port = free_port()
    machines = [start_machine(shared, index, tmp_path / "fresh", port) for index in (0, 1)]
    for machine in machines:
        message = machine.communicate(timeout=DEADLINE_S)[1]
        assert machine.returncode == 0, message
    facts = facts_of(shared.train())
    assert 10 <= facts["resumed_from_step"] < 100
    assert (facts["steps"], facts["machines"], facts["attempt"]) == (100, 2, 2)


def test_a_machine_stays_until_the_leader_has_published(
    model_folder: Path, train_table: pa.Table, validation_table: pa.Table, tmp_path: Path
) -> None:
    """A machine that has ended well is never started again, and a leader that fails after the last step needs it."""
    settings = list_overrides(model_folder, tmp_path)
    place, plan = publish_inputs(load_config("tiny", settings), train_table.slice(0, 16), validation_table)
    planned = plan.stages["train"]
    context = make_context(place, plan, "train", tmp_path)
    with pytest.raises(TransientError, match=rf"machine 0 published no {planned.key} within 0 s of the last step"):
        await_artifact(context, patience_s=0)

    def publish() -> None:
        folder = tmp_path / "made" / "train"
        folder.mkdir()
        (folder / "train.json").write_text("{}")
        publish_stage(place, plan, "train", folder)

    leader = threading.Timer(0.5, publish)
    leader.start()
    await_artifact(context, patience_s=DEADLINE_S)
    assert place.store.read_manifest(planned.key) is not None
    leader.join()
