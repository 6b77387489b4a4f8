"""Real processes, really stopped: SIGKILL, SIGTERM, and a machine without a 4-bit kernel."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.train.checkpoints import MARKER
from tests.train.conftest import Finished, Prepared
from tests.train.made_runs import DEADLINE_S, comparable_rows, facts_of, signal_after, start

# Long enough that the process is still training when the signal arrives.
LONG = ("train.max_steps=100", "train.epochs=20", "train.save_steps=5", "train.eval_steps=20")


@pytest.fixture(scope="module")
def long_run(prepare_run: Callable[..., Prepared]) -> Finished:
    return prepare_run(*LONG).train()


def test_sigkill_and_an_unfinished_checkpoint_change_nothing(
    prepare_run: Callable[..., Prepared], long_run: Finished
) -> None:
    prepared = prepare_run(*LONG)
    process = start(prepared)
    signal_after(process, prepared.checkpoints / "checkpoint-30" / MARKER, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    # As if the kill had come while a later checkpoint was being written.
    (prepared.checkpoints / "checkpoint-95").mkdir()
    (prepared.checkpoints / "checkpoint-95" / "adapter_model.safetensors").write_bytes(b"half")

    resumed = prepared.train()
    step = facts_of(resumed)["resumed_from_step"]
    assert 30 <= step < 100
    assert step % 5 == 0
    assert resumed.adapter_digests() == long_run.adapter_digests()
    assert comparable_rows(resumed) == comparable_rows(long_run)
    assert facts_of(resumed)["trained_tokens"] == facts_of(long_run)["trained_tokens"]
    assert [row["step"] for row in comparable_rows(resumed) if row["split"] == "train"] == list(range(1, 101))


def test_sigterm_saves_exits_143_and_resumes_to_the_same_bytes(
    prepare_run: Callable[..., Prepared], long_run: Finished
) -> None:
    prepared = prepare_run(*LONG)
    process = start(prepared)
    message = signal_after(process, prepared.checkpoints / "checkpoint-10" / MARKER, signal.SIGTERM)
    assert process.returncode == 143, message
    assert "stopped by SIGTERM after step" in message
    assert "Traceback" not in message

    resumed = prepared.train()
    step = facts_of(resumed)["resumed_from_step"]
    assert f"after step {step} of 100" in message
    assert resumed.adapter_digests() == long_run.adapter_digests()
    assert comparable_rows(resumed) == comparable_rows(long_run)


def test_the_flat_engine_goes_on_to_the_same_bytes_after_a_kill(prepare_run: Callable[..., Prepared]) -> None:
    settings = (*LONG, "train.engine=flat", "train.tokens_per_batch=150", "train.eval_steps=null")
    undisturbed, prepared = prepare_run(*settings).train(), prepare_run(*settings)
    process = start(prepared)
    signal_after(process, prepared.checkpoints / "checkpoint-10" / MARKER, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL

    resumed = prepared.train()
    assert 10 <= facts_of(resumed)["resumed_from_step"] < 100
    assert resumed.adapter_digests() == undisturbed.adapter_digests()
    assert comparable_rows(resumed) == comparable_rows(undisturbed)
    facts = facts_of(resumed)
    assert (facts["engine"], facts["tokens_per_batch"], facts["activation_checkpointing"]) == ("flat", 150, False)


def test_a_broken_bitsandbytes_means_lora_without_quantisation_and_says_so(
    prepare_run: Callable[..., Prepared], tmp_path: Path
) -> None:
    stub = tmp_path / "stub" / "bitsandbytes"
    stub.mkdir(parents=True)
    (stub / "__init__.py").write_text('raise ImportError("libbitsandbytes_cpu.so: cannot open shared object file")\n')
    prepared = prepare_run("train.max_steps=2", "train.optimizer=paged_adamw_8bit")
    process = start(prepared, stub=stub.parent)
    console = process.communicate(timeout=DEADLINE_S)[1]
    assert process.returncode == 0, console
    assert "degraded: no 4-bit kernel: bitsandbytes cannot be imported" in console

    manifest = prepared.place.store.read_manifest(prepared.planned.key)
    assert [entry.name for entry in manifest.degradations] == ["no 4-bit kernel", "no paged optimizer"]
    facts = json.loads((prepared.place.store.locate(manifest) / "train.json").read_text())
    assert (facts["quantization"], facts["quantization_requested"]) == ("none", "nf4")
    assert facts["optimizer"] == "adamw_torch"
