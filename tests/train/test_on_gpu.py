"""What only a GPU shows: kernels, bfloat16, memory, and runs that are stopped."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from jobs.train.checkpoints import MARKER
from jobs.train.engine import choose_engine
from jobs.train.flat_loss import sum_nats
from jobs.train.metrics import MetricsWriter
from jobs.train.rows import IGNORED, LabelledRows
from jobs.train.sft import fine_tune
from pipeline_common.config import TrainConfig
from pipeline_common.errors import TransientError
from pipeline_common.gpu.models import Placement, load_base
from pipeline_common.termination import StopSignal
from tests.train.conftest import Finished, Prepared
from tests.train.made_runs import comparable_rows, facts_of, signal_after, start
from tests.train.made_trainers import Build, TrainerMaker, losses

pytestmark = pytest.mark.gpu
MIB = 2**20


@pytest.fixture
def whole_card() -> Iterator[None]:
    """Undo a limit of memory afterwards."""
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.fixture
def long_rows(tokenizer: Any, tmp_path: Path) -> Iterator[TrainerMaker]:
    """Eight rows of 8,192 tokens, and a wider model that has as many positions."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=384, hidden_size=256, intermediate_size=1024, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=8192, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        )
    ).save_pretrained(tmp_path / "model")  # fmt: skip
    draw = np.random.default_rng(0)
    ids = [draw.integers(3, 384, 8192).tolist() for _ in range(8)]
    labels = [[IGNORED] * 100 + row[100:] for row in ids]
    kind = pa.list_(pa.int32())
    rows = LabelledRows(
        pa.table({"input_ids": pa.array(ids, kind), "labels": pa.array(labels, kind)}), 8 * 8192, 8 * 8092, 8192
    )
    with ExitStack() as stack:
        few = LabelledRows(rows.table.slice(0, 1), 8192, 8092, 8192)
        yield TrainerMaker(tmp_path / "model", tokenizer, rows, few, tmp_path, stack)


def apart(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Relative Frobenius norm."""
    return float((found.float() - wanted.float()).norm() / wanted.float().norm())


@pytest.mark.parametrize(("dtype", "name"), [(torch.bfloat16, "flat"), (torch.float32, "plain")])
def test_auto_is_flat_where_the_attention_kernel_is(dtype: torch.dtype, name: str) -> None:
    told: list[str] = []
    engine = choose_engine(TrainConfig(engine="auto"), Placement("cuda", dtype, "none"), lambda *why: told.extend(why))
    assert (engine.name, told) == (name, [])


def test_the_trajectory_is_the_plain_engines_within_bfloat16(build: Build) -> None:
    """Bfloat16 rounds to 3 digits, other kernels sum in other orders: a relative 2e-2 over 16 steps."""
    expected = losses(build("plain", "cuda"))
    assert losses(build("flat", "cuda")) == pytest.approx(expected, rel=2e-2)
    assert losses(build("flat", "cuda", activation_checkpointing=True)) == pytest.approx(expected, rel=2e-2)


def test_packed_losses_and_gradients_are_those_of_separate_rows(build: Build) -> None:
    """The packed kernel has no float32; two ways through bfloat16 differ by some roundings of 0.4 %: 5 % at most."""
    flat, plain = (build(name, "cuda", tokens_per_batch=300) for name in ("flat", "plain"))
    batch = next(iter(flat.get_train_dataloader()))
    step, answers = batch["step"], int((batch["labels"] != IGNORED).sum())
    for trainer in (flat, plain):
        draw = torch.Generator().manual_seed(3)
        for name, parameter in sorted(trainer.model.named_parameters()):
            if "lora_B" in name:
                parameter.data = 0.05 * torch.randn(parameter.shape, generator=draw).cuda()
    loss = flat.training_step(flat.model, batch, torch.tensor(answers, device="cuda"))
    nats = torch.zeros((), device="cuda")
    plain.model.train()
    for ids, labels in zip(step.input_ids, step.labels, strict=True):
        with torch.autocast("cuda", torch.bfloat16):
            logits = plain.model(input_ids=ids[None].cuda()).logits[0].float()
        nats = nats + torch.nn.functional.cross_entropy(logits[:-1], labels[1:].cuda(), reduction="sum")
    (nats / answers).backward()

    assert float(loss) == pytest.approx(float(nats.detach()) / answers, rel=1e-3)
    pairs = zip(flat.model.named_parameters(), plain.model.named_parameters(), strict=True)
    different = {name: apart(one.grad, other.grad) for (name, one), (_, other) in pairs if one.requires_grad}
    assert len(different) == 28
    assert max(different.values()) < 0.05, different


def test_ligers_loss_is_the_chunked_one() -> None:
    head = torch.nn.Linear(256, 1000, bias=False, device="cuda", dtype=torch.bfloat16).requires_grad_(False)
    hidden = torch.randn(3000, 256, device="cuda", dtype=torch.bfloat16).requires_grad_()
    targets = torch.randint(1000, (3000,), device="cuda")
    results = []
    for liger in (True, False):
        nats = sum_nats(hidden, head, targets, liger=liger)
        (gradient,) = torch.autograd.grad(nats / 3000, hidden)
        results.append((float(nats), gradient.float()))
    (fast, one), (exact, other) = results
    assert fast == pytest.approx(exact, rel=1e-3)
    assert float((one - other).norm() / other.norm()) < 2e-2


def test_the_probe_leaves_no_trace_and_the_plan_holds(build: Build, whole_card: None) -> None:
    torch.manual_seed(1)
    before = torch.cuda.get_rng_state()
    trainer = build("flat", "cuda", tokens_per_batch="auto", lora_dropout=0.05, memory_gib=2.0)
    plan = trainer.plan
    assert plan.free_gib < 2.0
    assert plan.mib_per_token > 0
    assert plan.tokens_per_second > 0
    assert all(parameter.grad is None for parameter in trainer.model.parameters())
    torch.manual_seed(0)
    fixed = build("flat", "cuda", tokens_per_batch=plan.tokens_per_batch, lora_dropout=0.05)
    assert torch.cuda.get_rng_state().shape == before.shape
    torch.cuda.reset_peak_memory_stats()
    assert losses(trainer) == pytest.approx(losses(fixed), rel=2e-2)
    assert torch.cuda.max_memory_allocated() < 2**31


def test_weights_that_are_kept_change_nothing(build: Build) -> None:
    results = []
    for keep in (False, True):
        trainer = build("flat", "cuda", lora_dropout=0.3)
        for group in trainer.adapters.groups:
            group.weights = []
            if keep:
                group.keep_weights(torch.bfloat16)
        results.append(losses(trainer))
    assert results[0] == pytest.approx(results[1], rel=1e-3)


def test_rows_of_8192_tokens_train_and_too_little_memory_halves_the_passes_once(
    long_rows: TrainerMaker, whole_card: None
) -> None:
    told: list[str] = []
    trainer = long_rows("flat", "cuda", tokens_per_batch=65_536, activation_checkpointing=False, max_steps=3)
    trainer.on_less_memory = told.append
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    resting = torch.cuda.memory_allocated()
    expected = losses(trainer)
    assert np.isfinite(expected).all()
    assert not told
    peak = torch.cuda.max_memory_allocated() - resting

    del trainer
    trainer = long_rows("flat", "cuda", tokens_per_batch=65_536, activation_checkpointing=False, max_steps=3)
    trainer.on_less_memory = told.append
    torch.cuda.empty_cache()
    allowed = torch.cuda.memory_reserved() + 0.75 * peak
    torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.get_device_properties().total_memory)
    # Rows of 8,192 tokens fill a budget of 32,768 exactly: two passes instead of one.
    assert losses(trainer) == pytest.approx(expected, rel=2e-2)
    assert len(told) == 1
    assert "32768 instead of 65536 tokens" in told[0]


def test_memory_that_never_suffices_names_the_three_settings(long_rows: TrainerMaker, whole_card: None) -> None:
    recipe = long_rows.recipe("flat", "cuda", tokens_per_batch=65_536, activation_checkpointing=False, max_steps=3)
    told: list[str] = []
    recipe = dataclasses.replace(recipe, on_less_memory=told.append)
    base = load_base(long_rows.model_folder, recipe.placement)
    torch.cuda.empty_cache()
    allowed = torch.cuda.memory_reserved() + 100 * MIB
    total = torch.cuda.get_device_properties().total_memory
    # The engine itself lifts the limit where none is configured.
    recipe = dataclasses.replace(recipe, train=recipe.train.model_copy(update={"memory_gib": allowed / 2**30}))
    assert allowed < total
    writer = MetricsWriter(long_rows.folder / "metrics.jsonl", lambda _: None)
    settings = r"train\.tokens_per_batch.*train\.activation_checkpointing=true.*prepare\.max_length"
    with pytest.raises(TransientError, match=settings):
        fine_tune(base, long_rows.tokenizer, recipe, writer, StopSignal())
    assert len(told) == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_a_stopped_run_goes_on_to_the_same_losses(
    prepare_run: Callable[..., Prepared], undisturbed_on_gpu: Finished, number: signal.Signals
) -> None:
    """Sums of bfloat16 in no fixed order: the same trajectory to 1 %, beside dropout's masks drawn from saved seeds.

    Passes are recorded, by each attempt anew.
    """
    prepared = prepare_run(*ON_GPU)
    process = start(prepared)
    message = signal_after(process, prepared.checkpoints / "checkpoint-10" / MARKER, number)
    assert process.returncode == (143 if number == signal.SIGTERM else -number), message

    resumed = prepared.train()
    assert 10 <= facts_of(resumed)["resumed_from_step"] < 60
    found, expected = comparable_rows(resumed), comparable_rows(undisturbed_on_gpu)
    assert [row["step"] for row in found] == [row["step"] for row in expected]
    assert [row["loss"] for row in found] == pytest.approx([row["loss"] for row in expected], rel=1e-2)
    assert facts_of(resumed)["trained_tokens"] == facts_of(undisturbed_on_gpu)["trained_tokens"]


ON_GPU = (
    "runtime.device=cuda", "model.compute_dtype=bfloat16", "train.engine=flat", "train.tokens_per_batch=150",
    "train.activation_checkpointing=false", "train.cuda_graphs=true", "train.max_steps=60", "train.epochs=20",
    "train.save_steps=5",
)  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed_on_gpu(prepare_run: Callable[..., Prepared]) -> Finished:
    return prepare_run(*ON_GPU).train()
