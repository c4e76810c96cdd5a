"""Products of frozen weights by oneDNN: the same sums, forward and backward, where they are taken and where not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from encoders import Saved, draw, make_backbone, make_vit, shaken, tune
from torch import Tensor, nn

from vpt.backbones.attention import key_value_maps
from vpt.heads import MaskHead
from vpt.machine import products
from vpt.machine.precision import prepare_frozen
from vpt.machine.products import FrozenLinear, batches_by_onednn, by_onednn, onednn_is_faster, route_products
from vpt.model import PromptedModel
from vpt.prompts import DeepPrompts

there = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this torch has no oneDNN operator for linear layers"
)


@pytest.fixture(params=[True, False], ids=["onednn", "fallback"])
def faster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param and not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this torch has no oneDNN operator for linear layers")
    monkeypatch.setattr(products, "onednn_is_faster", lambda: request.param)
    return bool(request.param)


@there
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "x",
    [
        torch.randn(4, 7, 24),
        torch.randn(7, 4, 24).transpose(0, 1),
        torch.randn(4, 7, 48)[..., ::2],
        torch.randn(24),
        torch.randn(0, 24),
        torch.randn(1, 24).expand(5, 24),
    ],
    ids=["plain", "transposed", "strided", "vector", "empty", "expanded"],
)
def test_a_frozen_layer_is_the_layer(x: Tensor, bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(24, 10, bias=bias).requires_grad_(False)
    frozen, x = FrozenLinear(layer), x.detach().requires_grad_()
    ours, theirs = frozen(x), layer(x)
    assert "ByOneDnn" in type(ours.grad_fn).__name__
    assert torch.allclose(ours, theirs, atol=1e-6)
    for along in (torch.randn_like(theirs), torch.ones(1).expand_as(theirs)):
        (a,) = torch.autograd.grad(ours, x, along, retain_graph=True)
        (b,) = torch.autograd.grad(theirs, x, along, retain_graph=True)
        assert torch.allclose(a, b, atol=1e-6)
    assert dict(frozen.named_parameters()).keys() == dict(layer.named_parameters()).keys()
    assert frozen.weight is layer.weight


@there
def test_nothing_is_kept_so_that_checkpointing_stops_before_the_last_product() -> None:
    frozen, x = FrozenLinear(nn.Linear(24, 10).requires_grad_(False)), torch.randn(3, 24, requires_grad=True)
    saved = Saved()
    with saved:
        frozen(x)
    assert saved.tensors == []


@there
def test_other_types_and_trained_weights_go_torchs_way() -> None:
    layer = nn.Linear(24, 10).double().requires_grad_(False)
    x = torch.randn(3, 24, dtype=torch.float64, requires_grad=True)
    assert torch.equal(FrozenLinear(layer)(x), layer(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert FrozenLinear(layer.float())(x.float()).dtype == torch.bfloat16
    trained = FrozenLinear(nn.Linear(24, 10))
    (gradient,) = torch.autograd.grad(trained(x.float()).sum(), trained.weight)
    assert gradient.abs().max() > 0


@pytest.mark.slow
@pytest.mark.parametrize("family", ["vit", "sam"])
@pytest.mark.parametrize("tuning", ["prompts", "bias", "partial", "lora", "ssf", "adapter", "full"])
def test_a_prepared_model_gives_what_it_gave(family: str, tuning: str, faster: bool) -> None:
    backbone = make_backbone(family)
    head = MaskHead(backbone.spec, classes=3, width=16, detail=8, levels=2)
    model = PromptedModel(backbone, shaken(DeepPrompts(backbone.spec, count=3)), shaken(head))
    tune(model, tuning, **({"dropout": 0.0} if tuning == "adapter" else {}))  # so that two passes are alike
    names, found = list(model.trained()), []
    for prepared in (False, True):
        if prepared:
            prepare_frozen(model.backbone, "32-true")
        model.zero_grad()
        output = model(draw(2))
        output.square().sum().backward()
        found.append([output.detach(), *(p.grad.clone() for p in model.trained().values() if p.grad is not None)])

    assert list(model.trained()) == names
    for ours, theirs in zip(found[1], found[0], strict=True):
        assert (ours - theirs).abs().max() <= 2e-5 * theirs.abs().max()
    routed = [module for module in model.backbone.modules() if type(module) is FrozenLinear]
    assert bool(routed) == (faster and tuning not in ("bias", "full"))


def test_maps_of_keys_and_values_are_those_of_the_plain_layer(faster: bool) -> None:
    backbone = make_vit()
    block = backbone.vit.blocks[1]
    before = key_value_maps(block.norm1, block.attn.qkv, backbone.spec.blocks[0].width)
    route_products(backbone)
    after = key_value_maps(block.norm1, block.attn.qkv, backbone.spec.blocks[0].width)
    for ours, theirs in zip(after, before, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_the_choice_is_made_by_the_processor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = {}
    for vendor in ("vendor_id : AuthenticAMD", "vendor_id : GenuineIntel"):
        monkeypatch.setattr(products, "_cpu_vendor", lambda vendor=vendor: vendor)
        onednn_is_faster.cache_clear()
        found[vendor] = onednn_is_faster()
    onednn_is_faster.cache_clear()
    able = torch.backends.mkldnn.is_available() and torch.backends.mkl.is_available()
    assert list(found.values()) == [able and hasattr(torch.ops.mkldnn, "_linear_pointwise"), False]


def setting() -> str:
    return str(torch.backends.mkldnn.matmul.fp32_precision)


def test_the_setting_is_what_it_was_when_the_last_leaves() -> None:
    before = setting()
    with by_onednn():
        first, second = by_onednn(), by_onednn()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)  # as threads do, not as a stack
        assert setting() == "bf16"
        second.__exit__(None, None, None)
        assert setting() == "bf16"
    assert setting() == before
    with pytest.raises(ZeroDivisionError), by_onednn():
        1 / 0  # noqa: B018
    assert setting() == before


@pytest.mark.parametrize("exact", [True, False])
def test_batches_go_by_onednn_only_where_it_is_as_exact(monkeypatch: pytest.MonkeyPatch, exact: bool) -> None:
    monkeypatch.setattr(products, "onednn_is_faster", lambda: True)
    monkeypatch.setattr(products, "by_onednn", lambda: torch.autocast("cpu", torch.bfloat16, enabled=not exact))
    batches_by_onednn.cache_clear()
    found = batches_by_onednn()
    batches_by_onednn.cache_clear()
    assert found == exact


def test_half_precision_leaves_the_layers_as_they_are() -> None:
    backbone = make_vit()
    prepare_frozen(backbone, "bf16-mixed")
    assert not any(isinstance(module, FrozenLinear) for module in backbone.modules())
    weight = backbone.vit.blocks[0].mlp.fc1.weight
    assert weight.dtype == torch.bfloat16
    assert F.linear(torch.ones(1, weight.shape[1], dtype=torch.bfloat16), weight).dtype == torch.bfloat16
