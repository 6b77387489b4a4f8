"""A base that is quantised on a device and comes back is the one that was quantised where it stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

from pipeline_common.errors import InputError
from pipeline_common.gpu.models import Placement, load_base
from pipeline_common.gpu.quantizing import quantised_by


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    LlamaForCausalLM(LlamaConfig(vocab_size=96, num_key_value_heads=2, **sizes)).save_pretrained(made)
    return made


def four_bit(model: Any) -> dict[str, torch.Tensor]:
    """Everything a 4-bit weight consists of, as bytes on the host."""
    found = {}
    for name, weight in model.named_parameters():
        state = getattr(weight, "quant_state", None)
        if state is not None:
            parts = {"codes": weight.data, "scales": state.absmax, "scales of scales": state.state2.absmax}
            found |= {f"{name}, {part}": tensor.cpu().view(torch.uint8) for part, tensor in parts.items()}
            found[f"{name}, offset"] = state.offset.cpu()
    return found


def require_same(one: Any, other: Any) -> None:
    expected, found = four_bit(one), four_bit(other)
    # 7 matrices in each of 2 layers, four things about each.
    assert len(expected) == 56
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor.flatten(), found[name].flatten()), name


@pytest.mark.parametrize("packed", [None, torch.float32, torch.bfloat16])
def test_the_bits_are_the_same(folder: Path, packed: torch.dtype | None) -> None:
    placement = Placement("cpu", torch.float32, "nf4")
    with quantised_by(torch.device("cpu")):
        through = load_base(folder, placement, packed=packed)
    require_same(load_base(folder, placement), through)
    tokens = torch.arange(12).view(1, 12)
    with torch.no_grad():
        assert torch.equal(through(tokens).logits, load_base(folder, placement)(tokens).logits)


def test_other_loads_are_left_alone(tmp_path: Path) -> None:
    before = AUTO_QUANTIZER_MAPPING["bitsandbytes_4bit"]
    with quantised_by(torch.device("cpu")):
        assert AUTO_QUANTIZER_MAPPING["bitsandbytes_4bit"] is not before
    assert AUTO_QUANTIZER_MAPPING["bitsandbytes_4bit"] is before
    with pytest.raises(InputError, match="does not load"), quantised_by(torch.device("cpu")):
        load_base(tmp_path, Placement("cpu", torch.float32, "nf4"))
    assert AUTO_QUANTIZER_MAPPING["bitsandbytes_4bit"] is before


@pytest.mark.gpu
def test_a_base_in_the_machines_memory_has_the_gpus_bits(folder: Path) -> None:
    placement = Placement("cuda", torch.bfloat16, "nf4")
    there, here = load_base(folder, placement), load_base(folder, placement, packed=torch.bfloat16)
    assert {parameter.device.type for parameter in here.parameters()} == {"cpu"}
    assert {parameter.device.type for parameter in there.parameters()} == {"cuda"}
    require_same(there, here)
