"""Flat batches: what a row gives must not depend on what lies beside it."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pipeline_common.gpu.attention import flatten_rows, register_varlen, split_by_tokens

ROWS = [[5, 6, 7, 8, 9], [11], [3, 1, 4, 1, 5, 9, 2, 6], [7, 7]]


def _model(seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    return LlamaForCausalLM(config)


def test_a_flat_batch_is_the_rows_end_to_end_with_restarting_positions() -> None:
    batch = flatten_rows(ROWS)

    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 9, 11, 3, 1, 4, 1, 5, 9, 2, 6, 7, 7]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 0, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1]]
    assert batch.cu_seqlens.tolist() == [0, 5, 6, 14, 16]
    assert batch.cu_seqlens.dtype == torch.int32
    assert (batch.max_length, batch.tokens, batch.lengths) == (8, 16, (5, 1, 8, 2))


@pytest.mark.parametrize("rows", [[], [[1], []]])
def test_an_empty_batch_and_an_empty_row_are_refused(rows: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="no empty one"):
        flatten_rows(rows)


def test_hidden_states_and_gradients_are_those_of_separate_rows() -> None:
    separate, flat = _model(), _model()
    expected = torch.cat([separate.model(input_ids=torch.tensor([row])).last_hidden_state[0] for row in ROWS])
    flat.set_attn_implementation(register_varlen())
    got = flat.model(**flatten_rows(ROWS).model_inputs()).last_hidden_state[0]
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    (expected * weights).sum().backward()
    (got * weights).sum().backward()

    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    for (name, one), other in zip(separate.model.named_parameters(), flat.model.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-5, atol=1e-5, msg=name)


def test_changing_one_row_changes_no_other_rows_states_by_a_bit() -> None:
    model = _model()
    model.set_attn_implementation(register_varlen())
    one = model.model(**flatten_rows(ROWS).model_inputs()).last_hidden_state[0]
    other = model.model(**flatten_rows([ROWS[0], [30], *ROWS[2:]]).model_inputs()).last_hidden_state[0]

    assert not torch.equal(one[5], other[5])
    assert torch.equal(one[:5], other[:5])
    assert torch.equal(one[6:], other[6:])


def test_padded_rows_are_refused_instead_of_answered_wrongly() -> None:
    model = _model()
    model.set_attn_implementation(register_varlen())

    with pytest.raises(ValueError, match="set_attn_implementation"):
        model.model(input_ids=torch.tensor([[1, 2], [3, 4]]))


@pytest.mark.parametrize(
    ("lengths", "budget", "runs"),
    [
        ((5, 1, 8, 2), 8, [(0, 1), (2,), (3,)]),
        ((5, 1, 8, 2), 16, [(0, 1, 2, 3)]),
        ((9, 1, 9), 4, [(0,), (1,), (2,)]),
        # Filled to the brim: 15 + 5. The same number of runs, of like size: 10 + 10.
        ((5, 5, 5, 5), 17, [(0, 1), (2, 3)]),
        # Two runs are needed; 9 + 7 is the most even cut of rows in this order.
        ((4, 5, 1, 6), 15, [(0, 1), (2, 3)]),
        ((), 4, []),
    ],
)
def test_rows_are_cut_in_their_order_by_a_token_budget(
    lengths: tuple[int, ...], budget: int, runs: list[tuple[int, ...]]
) -> None:
    assert [tuple(run) for run in split_by_tokens(lengths, budget)] == runs


@pytest.mark.gpu
def test_the_gpus_kernel_gives_what_attention_row_by_row_gives() -> None:
    """bfloat16: 3 significant digits, so 2e-2 on values of order one."""
    model = _model().to("cuda", torch.bfloat16)
    expected = torch.cat(
        [model.model(input_ids=torch.tensor([row], device="cuda")).last_hidden_state[0] for row in ROWS]
    )
    model.set_attn_implementation(register_varlen())
    got = model.model(**flatten_rows(ROWS, "cuda").model_inputs()).last_hidden_state[0]

    torch.testing.assert_close(got, expected, rtol=2e-2, atol=4e-2)
