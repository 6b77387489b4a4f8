"""The model side on a small Llama: one load is two models, and how things are batched changes nothing."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from jobs.evaluate.model import load_pair
from jobs.evaluate.model_generation import beam_openings
from jobs.evaluate.model_openings import refusal_log_odds
from jobs.evaluate.model_sweep import sweep
from jobs.evaluate.openings import build_tree
from pipeline_common.errors import InputError
from pipeline_common.gpu.models import Placement, attach_adapter, load_base
from tests.evaluate.made_answers import answered
from tests.evaluate.made_models import LAYERS, WIDTH, build_adapter


def swept(pair, prompts, role="tuned", pooling="last", batch_tokens=4096):
    with pair.playing(role) as model:
        return sweep(model, prompts, pooling=pooling, pad_id=0, bos_id=1, batch_tokens=batch_tokens)


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_base_is_bit_equal_to_a_separate_load(quantization, base_folder, adapter_folder, prompts):
    placement = Placement("cpu", torch.float32, quantization)
    pair = load_pair(base_folder, adapter_folder, placement, "inst")
    before = swept(pair, prompts, "base")
    tuned = swept(pair, prompts, "tuned")
    with torch.inference_mode():
        alone = sweep(load_base(base_folder, placement), prompts, pooling="last", pad_id=0, bos_id=1, batch_tokens=4096)
    assert np.array_equal(before, alone)
    assert np.array_equal(swept(pair, prompts, "base"), alone)  # and again after the adapter was on
    assert not np.allclose(tuned[:, -1], alone[:, -1], atol=1e-3)
    assert np.array_equal(tuned[:, 0], alone[:, 0])  # the embeddings are not adapted


def test_the_adapter_is_off_only_inside(pair, prompts):
    with pytest.raises(RuntimeError, match="on purpose"), pair.playing("base"):
        raise RuntimeError("on purpose")
    tuned, base = swept(pair, prompts, "tuned"), swept(pair, prompts, "base")
    assert not np.array_equal(tuned, base)
    with pytest.raises(ValueError, match="none of"), pair.playing("other"):
        pass


@pytest.mark.parametrize("role", ["base", "tuned"])
def test_sweep_equals_output_hidden_states(pair, prompts, role):
    last, mean = swept(pair, prompts, role), swept(pair, prompts, role, "mean")
    assert last.shape == mean.shape == (len(prompts), LAYERS + 1, WIDTH)
    assert last.dtype == np.float32
    with pair.playing(role) as model:
        for row, ids in enumerate(prompts):
            states = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
            expected = torch.stack(states)[:, 0].numpy()  # [L + 1, T, D]
            np.testing.assert_allclose(last[row], expected[:, -1], atol=1e-5)
            np.testing.assert_allclose(mean[row], expected[:, 1:].mean(axis=1), atol=1e-5)


def test_sweep_does_not_depend_on_batches_or_order(pair, prompts):
    for pooling in ("last", "mean"):
        whole = swept(pair, prompts, pooling=pooling)
        np.testing.assert_allclose(swept(pair, prompts, pooling=pooling, batch_tokens=1), whole, atol=2e-6)
        order = np.random.default_rng(0).permutation(len(prompts))
        shuffled = swept(pair, [prompts[i] for i in order], pooling=pooling, batch_tokens=60)
        np.testing.assert_allclose(shuffled, whole[order], atol=2e-6)


def test_a_prompt_without_text_has_nothing_to_pool(pair):
    with pytest.raises(InputError, match="none to pool"):
        swept(pair, [[1]], pooling="mean")


def test_an_untrained_adapter_is_refused(base_folder, placement, tmp_path):
    adapter = build_adapter(base_folder, tmp_path, scale=0)
    with pytest.raises(InputError, match="changes nothing"):
        load_pair(base_folder, adapter, placement, "inst")


def test_an_adapter_of_another_shape_is_refused(base_folder, placement, tmp_path):
    from transformers import AutoModelForCausalLM, LlamaConfig

    other = AutoModelForCausalLM.from_config(
        LlamaConfig(
            vocab_size=400, hidden_size=48, intermediate_size=64, num_hidden_layers=LAYERS, num_attention_heads=2
        )
    )
    other.save_pretrained(tmp_path / "other")
    adapter = build_adapter(tmp_path / "other", tmp_path / "adapter")
    with pytest.raises(InputError, match="does not fit the base model"):
        attach_adapter(load_base(base_folder, placement), adapter)


def test_answers_are_greedy_and_do_not_depend_on_batches(pair, prompts):
    together, alone = answered(pair, prompts), answered(pair, prompts, batch_tokens=1)
    assert together == alone
    with pair.playing("base") as model:
        ids = list(prompts[0])
        for token in together[0].token_ids:
            assert int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()) == token
            ids.append(token)


def test_answers_end_at_a_stop_token_or_the_limit(pair, prompts):
    long, short = answered(pair, prompts, max_new_tokens=40), answered(pair, prompts, max_new_tokens=8)
    assert any(answer.finished and answer.stop_id == 2 for answer in long)
    assert all(len(answer.token_ids) == 8 and not answer.finished for answer in short)
    # Any token can be made the end of an answer: here each answer's own third one.
    third = short[0].token_ids[2]
    stopped = answered(pair, prompts[:1], stop_ids=(2, third), max_new_tokens=8)[0]
    assert (stopped.token_ids, stopped.stop_id) == (short[0].token_ids[:2], third)
    assert stopped.text == pair.tokenizer.decode(list(short[0].token_ids[:2])).strip()


def brute_force_log_odds(model, ids, openings):
    total = 0.0
    for opening in openings:
        logits = model(input_ids=torch.tensor([[*ids, *opening]])).logits[0].double().log_softmax(-1)
        total += math.exp(sum(logits[len(ids) - 1 + k, token].item() for k, token in enumerate(opening)))
    return math.log(total) - math.log1p(-total)


@pytest.mark.parametrize(
    "openings",
    [
        [(40, 41, 42), (40, 41, 43), (40, 50), (60, 2), (61, 7, 8, 9, 10, 11, 12, 13)],
        [(40,), (41,)],
    ],
)
def test_refusal_log_odds_equal_one_sequence_at_a_time(pair, prompts, openings):
    for role in ("base", "tuned"):
        with pair.playing(role) as model:
            found = refusal_log_odds(model, prompts, build_tree(openings), pad_id=0, batch_tokens=300)
            single = refusal_log_odds(model, prompts, build_tree(openings), pad_id=0, batch_tokens=1)
            expected = [brute_force_log_odds(model, ids, openings) for ids in prompts]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found, single, rtol=1e-5, atol=1e-5)


def test_beams_hold_the_greedy_beginning_and_are_ordered(pair, prompts):
    greedy = answered(pair, prompts, max_new_tokens=8)
    with pair.playing("base") as model:
        found = beam_openings(
            model, pair.tokenizer, prompts, stop_ids=(2,), pad_id=0, tokens=4, beams=4, batch_tokens=200
        )
        for ids, beams, first in itertools.islice(zip(prompts, found, greedy, strict=True), 6):
            assert len({beam.token_ids for beam in beams}) == 4
            assert first.token_ids[:4] in {beam.token_ids for beam in beams}
            odds = [brute_force_log_odds(model, ids, [(*beam.token_ids, *([2] * beam.finished))]) for beam in beams]
            assert odds == sorted(odds, reverse=True)
