"""L2P: every image gets the prompts of the pool whose keys are nearest to it, whoever is beside it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from encoders import WIDTH, draw, flat, make_vit, shaken, total
from pydantic import ValidationError

from vpt.model import encode
from vpt.prompts import L2pPrompts
from vpt.prompts.base import Info
from vpt.prompts.l2p import L2pConfig


def make(**more: float) -> L2pPrompts:
    torch.manual_seed(0)
    return L2pPrompts(make_vit().spec, **{"pool": 6, "length": 2, "top": 3, **more})  # type: ignore[arg-type]


def test_an_image_gets_the_prompts_with_the_largest_cosines_before_the_first_block() -> None:
    backbone, prompts, query = make_vit(), shaken(make()), torch.randn(4, WIDTH)
    state = prompts.begin(None, Info(query=query))
    tokens, context = prompts.enter(0, backbone.embed(draw(4)), state)
    assert context is None
    assert prompts.enter(1, tokens, state)[0] is tokens
    for image in range(4):
        cosine = F.cosine_similarity(query[image][None], prompts.keys, dim=-1)
        nearest = cosine.argsort(descending=True)[:3]
        torch.testing.assert_close(tokens.prompts[image], prompts.tokens[nearest].flatten(0, 1))
    assert total(prompts) == 6 * (2 * WIDTH + WIDTH)


def test_the_penalty_pulls_the_chosen_keys_alone() -> None:
    prompts, query = shaken(make(pull=0.4)), torch.randn(4, WIDTH)
    penalty = prompts.penalty(prompts.begin(None, Info(query=query)))
    cosine = F.cosine_similarity(query[:, None], prompts.keys[None], dim=-1)
    expected = 0.4 * (1 - cosine.topk(3).values).sum(1).mean()
    assert penalty.item() == pytest.approx(expected.item(), rel=1e-5)
    penalty.backward()
    chosen = cosine.topk(3).indices.unique()
    moved = prompts.keys.grad.abs().sum(1) > 0  # type: ignore[union-attr]
    assert moved.nonzero().flatten().tolist() == chosen.tolist()


def test_images_do_not_matter_to_each_other() -> None:
    backbone, prompts, images = make_vit(), shaken(make()), draw(5)
    with torch.no_grad():
        together = flat(encode(backbone, prompts, images))
        alone = torch.cat([flat(encode(backbone, prompts, image[None])) for image in images])
    assert (together - alone).abs().max() < 2e-5


def test_a_further_task_trains_the_pool_on() -> None:
    learned, further = shaken(make()), make()
    further.continue_from(learned)
    assert all(torch.equal(a, b) for a, b in zip(learned.parameters(), further.parameters(), strict=True))
    assert L2pConfig().further() == L2pConfig()


def test_no_more_are_chosen_than_there_are() -> None:
    with pytest.raises(ValidationError, match="top 5 of a pool of 4"):
        L2pConfig(pool=4)
