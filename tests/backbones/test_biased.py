"""Attention with a bias for every pair: the sums of its formula, whatever is added so that it runs fast."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import vpt.backbones.biased as biased
from vpt.backbones.biased import mix_biased, with_prompts
from vpt.backbones.pieces import mix_in_pieces

WINDOWS = 6  # three of each of two images


def plain(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    """The formula, a window at a time."""
    of_window = bias if bias.ndim == 4 else bias.unsqueeze(0)
    mixed = []
    for i, (q, k, v) in enumerate(zip(queries, keys, values, strict=True)):
        mixed.append((q @ k.transpose(-2, -1) + of_window[i % len(of_window)]).softmax(-1) @ v)
    return torch.stack(mixed)


def given(keys: int, windows: int | None, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    torch.manual_seed(keys)
    shapes = [(WINDOWS, 2, 5, 8), (WINDOWS, 2, keys, 8), (WINDOWS, 2, keys, 4)]
    bias = (2, 5, keys) if windows is None else (windows, 2, 5, keys)
    return [torch.randn(shape).to(dtype) for shape in (*shapes, bias)]


@pytest.mark.parametrize("windows", [None, 1, 3])
@pytest.mark.parametrize("chunk", [1, 500, 10**9])
@pytest.mark.parametrize("keys", [7, 20, 32, 59])
def test_a_bias_is_added_to_the_scores_of_its_window(
    monkeypatch: pytest.MonkeyPatch, keys: int, chunk: int, windows: int | None
) -> None:
    monkeypatch.setattr(biased, "CHUNK", chunk)
    parts = given(keys, windows)
    assert (mix_biased(*parts) - plain(*parts)).abs().max() <= 1e-12


@pytest.mark.parametrize("windows", [None, 3])
def test_it_has_the_gradients_of_its_formula(windows: int | None) -> None:
    parts = [part.requires_grad_() for part in given(20, windows)]
    found = torch.autograd.grad(mix_biased(*parts).square().sum(), parts)
    expected = torch.autograd.grad(plain(*parts).square().sum(), parts)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).abs().max() <= 1e-12


@pytest.mark.parametrize("trains", [False, True])
@pytest.mark.parametrize("keys", [1, 13, 20, 31, 32, 33, 59, 63])
def test_in_bfloat16_nobody_attends_to_what_fills_a_row(keys: int, trains: bool) -> None:
    """Scores far below zero: a filled key with a score of 0 would get all the weight."""
    queries, k, values, bias = given(keys, 3, torch.bfloat16)
    parts = [queries, k, values + 1, bias - 50]
    expected = plain(*(part.double() for part in parts))
    if trains:
        parts = [*(part.requires_grad_() for part in parts[:3]), parts[3]]
    found = mix_biased(*parts)
    assert found.dtype == torch.bfloat16
    assert (found.double() - expected).abs().max() <= 0.3  # scores near -50 in bfloat16 are 0.25 apart
    assert (mix_biased(*parts[:2], torch.ones_like(values), bias - 50) - 1).abs().max() <= 2**-7


@pytest.mark.parametrize("keys", [1, 13, 20, 31, 32, 33, 59, 63])
def test_nor_does_anybody_where_there_is_no_bias(keys: int) -> None:
    queries, k, values, _ = given(keys, None, torch.bfloat16)
    k = k - 20 * queries.mean(dim=2, keepdim=True)  # scores below zero
    assert (mix_in_pieces(queries, k, torch.ones_like(values), 1.0) - 1).abs().max() <= 2**-7
    exact = F.scaled_dot_product_attention(queries.double(), k.double(), values.double(), scale=1.0)
    assert (mix_in_pieces(queries, k, values, 1.0).double() - exact).abs().max() <= 0.3


def test_a_bias_that_trains_is_added_in_its_own_precision() -> None:
    queries, keys, values, bias = given(20, None, torch.bfloat16)
    bias = bias.float().requires_grad_()
    (gradient,) = torch.autograd.grad(mix_biased(queries, keys, values, bias).float().sum(), [bias])
    assert gradient.dtype == torch.float32


def test_prompts_are_the_same_in_every_window_of_an_image_and_come_after_its_patches() -> None:
    patches, prompts = torch.randn(6, 2, 5, 4), torch.randn(2, 2, 3, 4)
    joined = with_prompts(patches, prompts, 2)
    assert torch.equal(joined[:, :, :5], patches)
    for window in range(6):
        assert torch.equal(joined[window, :, 5:], prompts[window // 3])
