"""VFPT: a share of each block's prompts is the real part of their Fourier transform over width and tokens."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from encoders import DEPTH, FAMILIES, VIT_B16, WIDTH, draw, flat, make_backbone, plain_spec, shaken, total
from torch import Tensor

from vpt.backbones.tokens import Tokens
from vpt.errors import VptError
from vpt.model import encode
from vpt.prompts import DeepPrompts, FourierPrompts

SPEC = plain_spec(width=WIDTH, depth=DEPTH)
TOKENS = Tokens(torch.zeros(2, 8, 5, WIDTH), torch.zeros(2, 1, WIDTH), torch.zeros(2, 0, WIDTH))


def cosines(prompts: Tensor) -> Tensor:
    """Re of the two-dimensional transform of (m, C): sum of P[n, c] cos(2 pi (k n / m + l c / C)) over n and c."""
    m, width = prompts.shape
    result = torch.zeros(m, width, dtype=torch.float64)
    n, c = torch.arange(m).double(), torch.arange(width).double()
    for k in range(m):
        for column in range(width):
            angle = 2 * math.pi * (k * n[:, None] / m + column * c / width)
            result[k, column] = (prompts.detach().double() * angle.cos()).sum()
    return result


def make(share: float, count: int = 6, **options: object) -> FourierPrompts:
    return shaken(FourierPrompts(SPEC, count=count, share=share, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0.3, 0.5, 1.0])
def test_it_has_as_many_parameters_as_deep_prompts(share: float) -> None:
    assert total(FourierPrompts(VIT_B16, count=10, share=share)) == 12 * 10 * 768
    assert total(FourierPrompts(VIT_B16, count=10, share=share, blocks=[2, 5])) == 2 * 10 * 768


@pytest.mark.parametrize(("share", "count", "m"), [(0.3, 10, 3), (0.5, 6, 3), (0.7, 10, 7), (1.0, 6, 6), (0.1, 3, 1)])
def test_a_share_is_transformed_and_the_rest_is_as_learned(share: float, count: int, m: int) -> None:
    prompts = make(share, count)

    for block in range(DEPTH):
        entered, context = prompts.enter(block, TOKENS, None)
        learned = prompts.table.tokens[block]
        assert entered is TOKENS
        assert context is not None
        assert context.shape == (count, WIDTH)
        assert (context[:m] - cosines(learned[:m])).abs().max() <= 1e-4
        assert torch.equal(context[m:], learned[m:])


def test_the_transform_follows_the_projection() -> None:
    prompts = make(0.5, project=6)
    _, context = prompts.enter(1, TOKENS, None)

    projected = prompts.table.project(prompts.table.tokens[1])
    assert context is not None
    assert (context[:3] - cosines(projected[:3])).abs().max() <= 1e-4


def test_the_transform_follows_dropout_and_treats_each_sample_by_itself() -> None:
    prompts = make(1.0, dropout=0.5).train()
    torch.manual_seed(7)
    _, context = prompts.enter(0, TOKENS, None)
    torch.manual_seed(7)
    dropped = prompts.table.row(0, 2)

    assert context is not None
    assert context.shape == (2, 6, WIDTH)
    for sample in (0, 1):
        assert (context[sample] - cosines(dropped[sample])).abs().max() <= 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_the_encoder_sees_deep_prompts_of_the_transformed_values(family: str) -> None:
    backbone = make_backbone(family)
    prompts = shaken(FourierPrompts(backbone.spec, count=4, share=0.5))
    deep, images = DeepPrompts(backbone.spec, count=4), draw(3)
    learned = prompts.table.tokens.detach()
    deep.start_from(torch.stack([torch.cat([cosines(row[:2]).float(), row[2:]]) for row in learned]))

    with torch.no_grad():
        ours, theirs = flat(encode(backbone, prompts, images)), flat(encode(backbone, deep, images))

    assert (ours - theirs).abs().max() <= 2e-5


@pytest.mark.parametrize("project", [None, 6])
def test_the_transform_is_exact_under_bfloat16(project: int | None) -> None:
    prompts = make(1.0, project=project)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, context = prompts.enter(0, TOKENS, None)
        given = prompts.table.row(0, 2)

    assert context is not None
    assert context.dtype == torch.float32
    assert (context - cosines(given)).abs().max() <= 1e-4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_prompts_of_another_type_are_transformed_in_float32_at_least_and_rounded_to_it_once(dtype: torch.dtype) -> None:
    prompts = make(0.5).to(dtype)
    context = prompts.enter(0, TOKENS, None)[1]
    exact = copy.deepcopy(prompts).double().enter(0, TOKENS, None)[1]

    assert context.dtype == dtype
    assert torch.allclose(context.double(), exact, rtol=torch.finfo(dtype).eps, atol=1e-5)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(VptError, match=r"prompts: share is .*; expected above 0 and at most 1, or choose `deep`"):
        FourierPrompts(SPEC, count=4, share=share)
