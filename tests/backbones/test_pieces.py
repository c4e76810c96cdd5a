"""Attention in pieces and norms that keep less: the same sums, forward and backward, and nothing large is kept."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from encoders import Saved, draw, make_sam, make_vit
from torch import Tensor, nn

import vpt.backbones.attention as attention
import vpt.backbones.pieces as pieces
from vpt.backbones.attention import mix_values
from vpt.backbones.pieces import AttentionInPieces, HalfNorm, mix_in_pieces, normalise
from vpt.heads import MaskHead
from vpt.machine.precision import autocast
from vpt.model import PromptedModel
from vpt.prompts import DeepPrompts

CPU = torch.device("cpu")
# of maps of 5 x 7 scores, 3 heads, 2 images: parts of a row, rows, heads, images at a time, all at once
CHUNKS = pytest.mark.parametrize("chunk", [1, 16, 40, 80, 110, 10**9])


def plain(queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    return ((queries * scale) @ keys.transpose(-2, -1)).softmax(-1) @ values


def leaves(width: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    torch.manual_seed(0)
    made = [torch.randn(2, 3, n, d) for n, d in ((5, 9), (7, 9), (7, width))]
    return [part.to(dtype).requires_grad_() for part in made]


@CHUNKS
@pytest.mark.parametrize("width", [4, 9])
@pytest.mark.parametrize("form", [mix_in_pieces, AttentionInPieces.apply])
def test_attention_in_pieces_is_attention(
    monkeypatch: pytest.MonkeyPatch, chunk: int, width: int, form: Callable[..., Tensor]
) -> None:
    monkeypatch.setattr(pieces, "CHUNK", 8 * chunk)
    given = leaves(width)
    assert (form(*[part.detach() for part in given], 0.3) - plain(*given, 0.3)).abs().max() <= 1e-12


@CHUNKS
@pytest.mark.parametrize("width", [4, 9])
@pytest.mark.parametrize("swapped", [False, True])
def test_lean_attention_has_its_gradients(
    monkeypatch: pytest.MonkeyPatch, chunk: int, width: int, swapped: bool
) -> None:
    """Also of queries, keys and values that lie in memory as a projection leaves them, tokens before heads."""
    monkeypatch.setattr(pieces, "CHUNK", 8 * chunk)
    given = leaves(width)
    if swapped:
        given = [part.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_() for part in given]
    along = torch.randn(2, 3, 5, width, dtype=torch.float64)

    found = torch.autograd.grad((AttentionInPieces.apply(*given, 0.3) * along).sum(), given)
    expected = torch.autograd.grad((plain(*given, 0.3) * along).sum(), given)

    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).abs().max() <= 1e-12


def test_a_map_of_a_large_batch_in_bfloat16_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    given = [torch.randn(1, 2, 64, 8).bfloat16().requires_grad_() for _ in range(3)]
    found = []
    for kept in (2**25, 1):
        monkeypatch.setattr(attention, "KEPT", kept)
        saved = Saved()
        with saved:
            out = mix_values(*given)
        largest = max(tensor.numel() for tensor in saved.tensors)
        found.append((largest, torch.autograd.grad(out.float().square().sum(), given)))

    assert found[0][0] == 2 * 64 * 64  # the plain form keeps the map
    assert found[1][0] == 2 * 64 * 8
    for a, b in zip(found[0][1], found[1][1], strict=True):
        assert F.cosine_similarity(a.float().flatten(), b.float().flatten(), dim=0) > 0.9998


@pytest.mark.parametrize("amx", [False, True])
@pytest.mark.parametrize("width", [4, 9])
def test_every_form_in_bfloat16_gives_the_same(monkeypatch: pytest.MonkeyPatch, amx: bool, width: int) -> None:
    for module in (attention, pieces):
        monkeypatch.setattr(module, "has_amx", lambda: amx)
    exact = plain(*leaves(width), scale=1 / 3)
    given = leaves(width, torch.bfloat16)
    with torch.no_grad():
        without_gradient = mix_values(*given)
    assert without_gradient.dtype == torch.bfloat16
    for found in (without_gradient, mix_values(*given)):
        assert F.cosine_similarity(found.double().flatten(), exact.flatten(), dim=0) > 0.9999


@pytest.mark.parametrize("amx", [False, True])
@pytest.mark.parametrize("count", [32, 45, 65, 577])  # whole vectors, 19 numbers short of them, 31, 31 of many
@pytest.mark.parametrize("chunk", [2**10, 2**22])  # some rows of a head at a time, all at once
def test_rows_that_are_filled_up_change_no_gradient(
    monkeypatch: pytest.MonkeyPatch, amx: bool, count: int, chunk: int
) -> None:
    monkeypatch.setattr(pieces, "has_amx", lambda: amx)
    monkeypatch.setattr(pieces, "CHUNK", chunk)
    torch.manual_seed(0)
    exact = [torch.randn(1, 3, n, 8, dtype=torch.float64).requires_grad_() for n in (9, count, count)]
    along = torch.randn(1, 3, 9, 8)
    wanted = torch.autograd.grad(plain(*exact, 0.3), exact, along.double())
    given = [part.detach().bfloat16().requires_grad_() for part in exact]

    found = torch.autograd.grad(AttentionInPieces.apply(*given, 0.3), given, along.bfloat16())

    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.shape == theirs.shape
        assert F.cosine_similarity(ours.double().flatten(), theirs.flatten(), dim=0) > 0.9998


@pytest.mark.parametrize("heads", [5, 6, 7, 12])
def test_heads_are_taken_in_equal_parts(monkeypatch: pytest.MonkeyPatch, heads: int) -> None:
    monkeypatch.setattr(pieces, "CHUNK", 8 * 5 * 7 * 5)  # five heads of 5 x 7 scores in float64
    queries, keys = torch.zeros(2, heads, 5, 4, dtype=torch.float64), torch.zeros(2, heads, 7, 4, dtype=torch.float64)

    sizes = [queries[place].shape[-3] for place, _ in pieces._places(queries, keys)]

    assert sum(sizes) == 2 * heads
    assert max(sizes) <= 5
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("pieces", [False, True])
@pytest.mark.parametrize("width", [4, 9])
def test_every_form_in_float32_gives_the_same(monkeypatch: pytest.MonkeyPatch, pieces: bool, width: int) -> None:
    monkeypatch.setattr(attention, "batches_by_onednn", lambda: pieces)
    exact = leaves(width)
    expected = plain(*exact, scale=1 / 3)
    wanted = torch.autograd.grad(expected.square().sum(), exact)
    given = leaves(width, torch.float32)
    with torch.no_grad():
        without_gradient = mix_values(*given)
    found = mix_values(*given)
    assert ("AttentionInPieces" in type(found.grad_fn).__name__) == pieces
    gradients = torch.autograd.grad(found.square().sum(), given)
    for ours, theirs in zip((without_gradient, found, *gradients), (expected, expected, *wanted), strict=True):
        assert (ours.double() - theirs).abs().max() <= 5e-6 * theirs.abs().max()


@pytest.mark.parametrize("make", [make_vit, make_sam])
def test_what_is_kept_goes_with_checkpointing(monkeypatch: pytest.MonkeyPatch, make: Callable[[], nn.Module]) -> None:
    monkeypatch.setattr(attention, "KEPT", 1)
    backbone = make()
    head = MaskHead(backbone.spec, classes=3, width=16, detail=8, levels=2)
    model = PromptedModel(backbone, DeepPrompts(backbone.spec, count=3), head)
    found = []
    for model.checkpointing in (False, True):
        model.zero_grad()
        with autocast("bf16-mixed", CPU):
            model(draw(2)).float().square().sum().backward()
        found.append([p.grad.clone() for p in model.trained().values()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


# --- norms ------------------------------------------------------------------------------------------------------------


def frozen_norm() -> nn.LayerNorm:
    torch.manual_seed(0)
    norm = nn.LayerNorm(32, eps=1e-6).requires_grad_(False)
    for part in (norm.weight, norm.bias):
        nn.init.normal_(part)
    return norm


def test_a_lean_norm_is_the_norm_and_keeps_half() -> None:
    norm, x = frozen_norm(), (3 + 2 * torch.randn(4, 6, 32)).requires_grad_()
    along = torch.randn(4, 6, 32).bfloat16()

    saved = Saved()
    with saved:
        ours = HalfNorm.apply(x, norm)
    (gradient,) = torch.autograd.grad(ours, x, along)
    plain_result = norm(x)
    (expected,) = torch.autograd.grad(plain_result, x, along.float())

    assert torch.allclose(ours.float(), plain_result, rtol=2**-8, atol=1e-6)
    assert (gradient - expected).abs().max() <= 2**-7 * expected.abs().max()
    assert F.cosine_similarity(gradient.flatten(), expected.flatten(), dim=0) > 0.99999
    assert {t.dtype for t in saved.tensors if t.shape == x.shape} == {torch.bfloat16}


def lean_under_autocast(norm: nn.Module, x: Tensor) -> bool:
    with torch.autocast("cpu", torch.bfloat16):
        return "HalfNorm" in type(normalise(norm, x).grad_fn).__name__


def test_a_norm_is_lean_only_where_it_is_frozen_and_bfloat16_trains() -> None:
    x = torch.randn(2, 3, 32, requires_grad=True)
    trained = nn.LayerNorm(32)
    half_trained = frozen_norm()
    half_trained.bias.requires_grad_()

    assert lean_under_autocast(frozen_norm(), x)
    assert not lean_under_autocast(frozen_norm(), x.detach())  # nothing is kept there anyway
    assert not any(lean_under_autocast(norm, x) for norm in (trained, half_trained, nn.LayerNorm(32, bias=False)))
    assert not lean_under_autocast(nn.LayerNorm(32, elementwise_affine=False), x)
    assert torch.equal(normalise(frozen_norm(), x), frozen_norm()(x))  # float32
