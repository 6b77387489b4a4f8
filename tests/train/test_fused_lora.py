"""Projections that read the same input, computed together: PEFT's mathematics, with the same masks written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from jobs.train import dropped_products
from jobs.train.dropped_products import Masks
from jobs.train.fused_adapters import FusedAdapters, fuse_adapters
from jobs.train.fused_lora import Group

WIDTH, RANK, TOKENS = 200, 16, 70
OUTPUTS = {"q_proj": 96, "k_proj": 32, "v_proj": 32, "gate_proj": 56, "o_proj": WIDTH}


class Side(torch.nn.Module):
    """Projections of one input, under the names of a Llama's; k has a bias."""

    def __init__(self) -> None:
        super().__init__()
        for name, size in OUTPUTS.items():
            setattr(self, name, torch.nn.Linear(WIDTH, size, bias=name == "k_proj"))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {name: getattr(self, name)(x) for name in OUTPUTS}


def _build(device: str, drop: float) -> tuple[Any, FusedAdapters]:
    torch.manual_seed(0)
    config = LoraConfig(r=RANK, lora_alpha=40, lora_dropout=drop, target_modules=list(OUTPUTS), init_lora_weights=False)
    model = get_peft_model(Side().requires_grad_(False), config).to(device)
    return model, fuse_adapters(model)


def _masks(group: Group, seed: int, x: torch.Tensor) -> list[torch.Tensor]:
    """The masks that a seed stands for, 0 or 1 / (1 - p), float32."""
    masks = Masks(len(group.modules), group.drop, seed)
    if x.is_cuda:
        _, masks = dropped_products.project(x, group.low_a, masks, 1.0)
        assert masks.kept is not None
        bits = (masks.kept[..., None].int() >> torch.arange(8, device=x.device)) & 1
        return [mask.flatten(1)[:, : x.shape[1]] / (1 - group.drop) for mask in bits]
    return [dropped_products._drop(torch.ones_like(x), masks, member) for member in range(masks.members)]


def _compare(device: str, drop: float) -> dict[str, float]:
    """Relative differences of outputs and gradients from autograd in float32."""
    model, adapters = _build(device, drop)
    groups = adapters.groups
    x = torch.randn(1, TOKENS, WIDTH, device=device, requires_grad=True)
    torch.manual_seed(5)
    with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
        got = model(x)
    torch.manual_seed(5)
    # One seed after the other, in the order of the groups.
    seeds = {id(group): int(torch.randint(2**31 - 1, ())) if drop else 0 for group in groups}
    weights = {name: torch.randn(1, TOKENS, size, device=device) for name, size in OUTPUTS.items()}
    sum((got[name].float() * weight).sum() for name, weight in weights.items()).backward()
    found = {"x": x.grad}
    x.grad = None
    wanted, total = {}, torch.zeros((), device=device)
    copies = {}
    for group in groups:
        low = x.detach()[0].to(torch.bfloat16 if device == "cuda" else torch.float32)
        masks = _masks(group, seeds[id(group)], low) if drop else [torch.ones_like(low)] * len(group.modules)
        for name, module, mask in zip(_names(model, group), group.modules, masks, strict=True):
            a, b = (part["default"].weight for part in (module.lora_A, module.lora_B))
            copies[name] = [one.detach().clone().requires_grad_() for one in (a, b)]
            base = module.base_layer
            y = torch.nn.functional.linear(x[0], base.weight, base.bias)
            y = y + 40 / RANK * (x[0] * mask.float()) @ copies[name][0].t() @ copies[name][1].t()
            wanted[name] = y
            total = total + (y * weights[name][0]).sum()
            found |= {f"{name}.A": a.grad, f"{name}.B": b.grad}
    total.backward()
    expected = {"x": x.grad} | {
        f"{name}.{'AB'[i]}": one.grad for name, pair in copies.items() for i, one in enumerate(pair)
    }
    found |= {name: got[name][0].detach() for name in OUTPUTS}
    expected |= {name: y.detach() for name, y in wanted.items()}
    return {name: float((found[name].float() - one).norm() / one.norm()) for name, one in expected.items()}


def _names(model: Any, group: Group) -> list[str]:
    inner = model.get_base_model()
    return [name for module in group.modules for name in OUTPUTS if getattr(inner, name) is module]


@pytest.mark.parametrize("drop", [0.0, 0.3])
def test_outputs_and_gradients_are_autograds(drop: float) -> None:
    apart = _compare("cpu", drop)
    assert len(apart) == 1 + 3 * len(OUTPUTS)
    assert max(apart.values()) < 1e-5, apart


@pytest.mark.gpu
@pytest.mark.parametrize("drop", [0.0, 0.3])
def test_outputs_and_gradients_are_autograds_on_the_gpu(drop: float) -> None:
    """A bfloat16 has 8 bits: 2^-9 = 0.2 % a rounding, some of them on the way."""
    apart = _compare("cuda", drop)
    assert max(apart.values()) < 1e-2, apart


def test_siblings_form_a_group_and_every_member_draws_its_own_mask() -> None:
    model, adapters = _build("cpu", 0.5)
    groups = adapters.groups
    assert len(adapters.parameters) == 2 * len(OUTPUTS)
    assert sorted(tuple(_names(model, group)) for group in groups) == [
        ("gate_proj",), ("o_proj",), ("q_proj", "k_proj", "v_proj"),
    ]  # fmt: skip
    group = next(group for group in groups if len(group.modules) == 3)
    first, second, third = (mask > 0 for mask in _masks(group, 7, torch.ones(500, WIDTH)))
    for one, other in ((first, second), (second, third), (first, third)):
        # Both keep an entry in a quarter of all cases; 100,000 entries, four standard deviations.
        assert float((one & other).float().mean()) == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 1e5) ** 0.5)
    assert not torch.equal(first, _masks(group, 8, torch.ones(500, WIDTH))[0] > 0)


def test_an_input_of_its_own_is_not_answered_with_a_siblings() -> None:
    """Where k reads something else than q, each is computed from what it is given."""
    model, _ = _build("cpu", 0.0)
    inner = model.get_base_model()
    x, other = torch.randn(2, 4, WIDTH)
    model(x)  # adapters' copies are made
    reference = {name: getattr(inner, name) for name in ("q_proj", "k_proj")}
    got = [reference["q_proj"](x), reference["k_proj"](other), reference["k_proj"](x)]
    model.eval()
    expected = [reference["q_proj"](x), reference["k_proj"](other), reference["k_proj"](x)]
    for one, wanted in zip(got, expected, strict=True):
        torch.testing.assert_close(one, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize(("tokens", "width", "members"), [(1000, 4096, 3), (33, 576, 2), (4097, 14_336, 1)])
def test_the_gpus_masks_have_the_right_rate_and_the_three_products_use_them(
    tokens: int, width: int, members: int
) -> None:
    drop, scale = 0.05, 2.0
    draw = torch.Generator("cuda").manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=draw, device="cuda", dtype=torch.bfloat16)

    x, a, below = normal(tokens, width), normal(16 * members, width), normal(tokens, 16 * members)
    inner, masks = dropped_products.project(x, a, Masks(members, drop, 123_456_789), scale)
    assert masks.kept is not None
    bits = (masks.kept[..., None].int() >> torch.arange(8, device="cuda")) & 1
    kept = [mask.flatten(1)[:, :width].float() / (1 - drop) for mask in bits]
    pairs = list(zip(kept, a.float().chunk(members), below.float().chunk(members, dim=1), strict=True))

    # Four standard deviations of a binomial share.
    for mask in kept:
        rate = float((mask == 0).float().mean())
        assert rate == pytest.approx(drop, abs=4 * (drop * (1 - drop) / mask.numel()) ** 0.5)
    if members > 1:
        together = float(((kept[0] == 0) & (kept[1] == 0)).float().mean())
        assert together == pytest.approx(drop**2, abs=4 * drop / kept[0].numel() ** 0.5)
    for got, wanted in (
        (inner, torch.cat([(x.float() * mask) @ one.t() for mask, one, _ in pairs], dim=1)),
        (
            dropped_products.outer(below, x, masks, scale),
            torch.cat([b.t() @ (x.float() * mask) for mask, _, b in pairs]),
        ),
        (dropped_products.spread(below, a, masks, scale), sum((b @ one) * mask for mask, one, b in pairs)),
    ):
        assert float((got.float() - scale * wanted).norm() / (scale * wanted).norm()) < 1e-2
    other = dropped_products.project(x, a, Masks(members, drop, 123_456_790), scale)[1].kept
    assert not torch.equal(masks.kept, other)
