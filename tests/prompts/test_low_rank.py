"""BPT: each block's prompts are the product of two thin matrices, which start as in the authors' BPT-bilinear."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from encoders import DEPTH, FAMILIES, VIT_B16, WIDTH, draw, flat, make_backbone, plain_spec, shaken, total

from vpt.backbones.tokens import Tokens
from vpt.errors import VptError
from vpt.model import encode
from vpt.prompts import DeepPrompts, LowRankPrompts

TOKENS = Tokens(torch.zeros(2, 8, 5, WIDTH), torch.zeros(2, 1, WIDTH), torch.zeros(2, 0, WIDTH))


@pytest.mark.parametrize(("count", "rank"), [(1, 1), (50, 8), (100, 17)])
def test_it_has_blocks_times_count_plus_width_times_rank_parameters(count: int, rank: int) -> None:
    assert total(LowRankPrompts(VIT_B16, count=count, rank=rank)) == 12 * (count + 768) * rank
    assert total(LowRankPrompts(VIT_B16, count=count, rank=rank, blocks="last:4")) == 4 * (count + 768) * rank


def test_the_default_is_a_sixth_of_vpt_deep() -> None:
    assert total(LowRankPrompts(VIT_B16)) == 78_528
    assert total(DeepPrompts(VIT_B16, count=50)) == 460_800


def test_a_blocks_prompts_are_the_product_of_its_factors() -> None:
    prompts = shaken(LowRankPrompts(plain_spec(width=WIDTH, depth=DEPTH), count=5, rank=2, blocks=[1, 3]))

    for block, row in ((1, 0), (3, 1)):
        entered, context = prompts.enter(block, TOKENS, None)
        assert entered is TOKENS
        for p in range(5):
            for c in range(WIDTH):
                expected = sum(prompts.left[row, p, k] * prompts.right[row, c, k] for k in range(2))
                assert context[p, c].item() == pytest.approx(expected.item(), abs=1e-6)
        assert torch.linalg.matrix_rank(context.detach()) == 2
    assert all(prompts.enter(i, TOKENS, None) == (TOKENS, None) for i in (0, 2))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_encoder_sees_deep_prompts_of_the_same_values(family: str) -> None:
    backbone = make_backbone(family)
    prompts = shaken(LowRankPrompts(backbone.spec, count=5, rank=2))
    deep, images = DeepPrompts(backbone.spec, count=5), draw(3)
    deep.start_from(torch.einsum("bpk,bck->bpc", prompts.left, prompts.right).detach())

    with torch.no_grad():
        ours, theirs = flat(encode(backbone, prompts, images)), flat(encode(backbone, deep, images))

    assert (ours - theirs).abs().max() <= 1e-5


@pytest.mark.parametrize("rank", [1, 4, 16])
@pytest.mark.parametrize(("width", "patch"), [(768, (16, 16)), (128, (8, 8)), (384, (14, 14))])
def test_prompts_start_with_the_published_deviation(rank: int, width: int, patch: tuple[int, int]) -> None:
    torch.manual_seed(0)
    prompts = LowRankPrompts(plain_spec(width=width, patch=patch), count=100, rank=rank)

    values = (prompts.left @ prompts.right.mT).detach()

    deviation, bound = 0.02 * (2 * rank / (width + rank)) ** 0.5, (6 / (width + rank)) ** 0.5
    assert values.std().item() == pytest.approx(deviation, rel=0.06)
    assert abs(values.mean().item()) < 0.03 * deviation
    assert prompts.left.std().item() == pytest.approx(0.02, rel=0.06)
    assert prompts.right.std().item() == pytest.approx(bound / 3**0.5, rel=0.03)
    assert 0.99 * bound < prompts.right.abs().max() <= bound


def test_both_factors_get_gradients_at_the_start() -> None:
    backbone = make_backbone("vit")
    prompts = LowRankPrompts(backbone.spec, count=5, rank=2)
    flat(encode(backbone, prompts, draw(2))).square().sum().backward()

    for factor in (prompts.left, prompts.right):
        assert (factor.grad.abs().amax((1, 2)) > 0).all()


@pytest.mark.parametrize("settings", [{"count": 0}, {"rank": 0}, {"count": -2}])
def test_nothing_to_learn_is_refused(settings: dict[str, Any]) -> None:
    ((name, value),) = settings.items()
    with pytest.raises(VptError, match=rf"prompts: {name} is {value}; at least 1 .*`none`"):
        LowRankPrompts(VIT_B16, **settings)
