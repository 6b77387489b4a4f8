"""The fast sweep against the simple one and against transformers' own hidden states."""

from __future__ import annotations

import logging
import threading
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from jobs.evaluate.model_copies import copying
from jobs.evaluate.model_flat_sweep import sweep_flat
from jobs.evaluate.model_fused import fused_layers
from jobs.evaluate.model_reading import tell_missing_kernels
from jobs.evaluate.model_sweep import Rows, states_of, sweep
from pipeline_common.errors import InputError, TransientError
from pipeline_common.gpu.models import Placement, load_base
from tests.evaluate.made_models import LAYERS


def flat(pair, prompts, role="tuned", pooling="last", batch_tokens=4096):
    with pair.playing(role) as model:
        return sweep_flat(model, prompts, pooling=pooling, bos_id=1, batch_tokens=batch_tokens)


@pytest.mark.parametrize("role", ["base", "tuned"])
@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_equals_the_simple_path_and_the_models_own_states(pair, prompts, role, pooling):
    found = flat(pair, prompts, role, pooling, batch_tokens=100)
    with pair.playing(role) as model:
        simple = sweep(model, prompts, pooling=pooling, pad_id=0, bos_id=1, batch_tokens=4096)
        states = [model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states for ids in prompts]
    own = np.stack([torch.stack(one)[:, 0].numpy() for one in states[:1]])[0]  # [L + 1, T, D]
    np.testing.assert_allclose(found[0], own[:, -1] if pooling == "last" else own[:, 1:].mean(axis=1), atol=1e-5)
    assert found.dtype == simple.dtype == np.float32
    np.testing.assert_allclose(found, simple, atol=1e-5)


def test_batches_and_order_change_rounding_at_most(pair, prompts):
    for pooling in ("last", "mean"):
        whole = flat(pair, prompts, pooling=pooling)
        order = np.random.default_rng(0).permutation(len(prompts))
        for batch_tokens in (1, 60, 333):
            shuffled = flat(pair, [prompts[i] for i in order], pooling=pooling, batch_tokens=batch_tokens)
            np.testing.assert_allclose(shuffled, whole[order], atol=2e-6)


def test_a_gpu_that_lacks_a_fast_kernel_is_told_by_name():
    told: list[tuple[str, str]] = []
    tell_missing_kernels(Placement("cpu", torch.float32, "none"), lambda *one: told.append(one))
    assert not told
    tell_missing_kernels(Placement("cuda", torch.bfloat16, "none"), lambda *one: told.append(one))
    expected = [] if torch.cuda.is_available() else ["no varlen attention"]
    expected += [] if find_spec("liger_kernel") else ["no Liger kernels"]
    assert [name for name, _ in told] == expected


def test_the_model_is_left_as_it_was(pair, prompts):
    def answers():
        with pair.playing("tuned") as model:
            return model(input_ids=torch.tensor(prompts[:1])).logits

    before = answers()
    with pair.playing("tuned") as model, fused_layers(model.base_model) as replaced:
        # Two norms per layer and the last one; an MLP and seven adapted matrices per layer.
        assert replaced == {
            "rotation": 0, "norm": 2 * LAYERS + 1, "gate": LAYERS, "low-rank update": 7 * LAYERS,
        }  # fmt: skip
    flat(pair, prompts)
    with pytest.raises(InputError, match="none to pool"):
        flat(pair, [[1]], pooling="mean")
    assert torch.equal(answers(), before)
    with pair.playing("tuned") as model:
        assert model.config._attn_implementation == "sdpa"
        assert not any("forward" in vars(module) for module in model.modules())


def test_in_bfloat16_it_is_no_farther_from_the_exact_states_than_the_simple_path(base_folder, prompts):
    """Both differ from each other by rounding; the exact states say that neither is worse."""

    def states(dtype, read, **batches):
        with torch.inference_mode():
            return read(
                load_base(base_folder, Placement("cpu", dtype, "none")), prompts, pooling="mean", bos_id=1, **batches
            )

    exact = states(torch.float32, sweep, pad_id=0, batch_tokens=4096)
    simple = states(torch.bfloat16, sweep, pad_id=0, batch_tokens=4096)
    found = states(torch.bfloat16, sweep_flat, batch_tokens=4096)

    def apart(one, other):
        return np.linalg.norm(one - other, axis=(0, 2)) / np.linalg.norm(other, axis=(0, 2))  # [L + 1]

    assert np.all(apart(found, exact) < 1.2 * apart(simple, exact) + 1e-6)
    assert np.all(apart(found, simple) < 0.02)
    assert not np.array_equal(found, simple)


class Broken:
    """A first layer whose states have one bad value where a certain token is."""

    def __init__(self, trunk, token, bad):
        self.token, self.bad, self.here = token, bad, None
        self.handles = [
            trunk.register_forward_pre_hook(self.before, with_kwargs=True),
            trunk.layers[0].register_forward_hook(self.after),
        ]

    def before(self, _module, _args, inputs):
        self.here = (inputs["input_ids"] == self.token).nonzero().tolist()

    def after(self, _module, _args, output):
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        for row, token in self.here:
            hidden[row, token, 3] = self.bad
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden


@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
@pytest.mark.parametrize("read", [sweep, sweep_flat])
def test_what_is_not_finite_is_named_whatever_batch_it_is_in(pair, prompts, read, bad):
    marked = [list(ids) for ids in prompts]
    unused = next(token for token in range(3, 400) if not any(token in ids for ids in prompts))
    with pair.playing("tuned") as model:
        for place in (11, 7):
            marked[place][-1] = unused
        broken = Broken(model.base_model, unused, bad)
        rows = Rows(
            np.empty((2 * len(prompts), *states_of(model)), np.float32),
            range(0, 2 * len(prompts), 2),
            "tuned",
            [f"p-{row}" for row in range(2 * len(prompts))],
        )
        ask = {"pad_id": 0} if read is sweep else {}
        try:
            with pytest.raises(
                InputError, match=r"^tuned activations: NaN or infinity at prompt 14 \(p-14\), layer 1 "
            ):
                read(model, marked, pooling="last", bos_id=1, batch_tokens=100, into=rows, **ask)
        finally:
            for handle in broken.handles:
                handle.remove()


def test_what_stops_the_storing_of_a_batch_stops_the_sweep(pair, prompts):
    """Rows that cannot be written: the thread that stores finds out, and nobody else."""
    with pair.playing("tuned") as model:
        array = np.empty((len(prompts), *states_of(model)), np.float32)
        array.flags.writeable = False
        with pytest.raises(ValueError, match="read-only"):
            sweep_flat(
                model, prompts, pooling="last", bos_id=1, batch_tokens=100, into=Rows(array, range(len(prompts)))
            )
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("host-copies")]


def test_nothing_is_lost_between_two_sweeps_that_share_their_copies(pair, prompts):
    with pair.playing("tuned") as model:
        pair_of_rows = [Rows.new(len(prompts), model) for _ in range(2)]
        with copying(torch.device("cpu")) as copies:
            for rows in pair_of_rows:
                sweep_flat(model, prompts, pooling="last", bos_id=1, batch_tokens=100, into=rows, copies=copies)
        alone = sweep_flat(model, prompts, pooling="last", bos_id=1, batch_tokens=100)
    assert all(np.array_equal(rows.array, alone) for rows in pair_of_rows)


class ShortMemory:
    """Raises as CUDA does when a batch has more tokens than the memory holds."""

    def __init__(self, limit):
        self.limit, self.widths = limit, []

    def __call__(self, _module, _args, inputs):
        self.widths.append(inputs["input_ids"].shape[1])
        if self.widths[-1] > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_batch_too_large_is_halved_once_and_recorded(pair, prompts, caplog):
    whole = flat(pair, prompts)
    trunk = pair.peft.get_base_model().base_model
    memory, notes = ShortMemory(limit=250), []
    handle = trunk.register_forward_pre_hook(memory, with_kwargs=True)
    try:
        with pair.playing("tuned") as model, caplog.at_level(logging.WARNING):
            found = sweep_flat(model, prompts, pooling="last", bos_id=1, batch_tokens=450, on_halved=notes.append)
        np.testing.assert_allclose(found, whole, atol=2e-6)
        half = memory.widths[0] // 2
        assert max(memory.widths[1:]) <= half < 250 < memory.widths[0] <= 450
        assert notes == [half]
        memory.limit = half // 2
        with pytest.raises(
            TransientError, match=r"evaluate\.batch_tokens.*model\.quantization.*evaluate\.max_new_tokens"
        ):
            flat(pair, prompts, batch_tokens=450)
    finally:
        handle.remove()
