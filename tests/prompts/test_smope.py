"""SMoPE: every head gives an image the experts that its mean query asks for, and a further task takes others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from encoders import DEPTH, FAMILIES, WIDTH, draw, flat, make_backbone, make_vit, shaken, total
from pydantic import ValidationError
from torch import Tensor

from vpt.backbones.tokens import Tokens
from vpt.errors import VptError
from vpt.heads import ClassifyHead
from vpt.model import PromptedModel, encode, encode_from, frozen_below
from vpt.prompts import Prompts, SmopePrompts
from vpt.prompts.base import Info
from vpt.prompts.smope import SmopeConfig

SETTINGS: dict[str, Any] = {"experts": 7, "top": 3, "blocks": (0, 2)}
HEADS, DEPTH_OF_HEAD = 2, WIDTH // 2


def make(**more: Any) -> SmopePrompts:
    torch.manual_seed(0)
    return SmopePrompts(make_vit().spec, **(SETTINGS | more))


def of_queries(queries: Tensor) -> Info:
    """Of these mean queries (B, heads, d) in every block."""
    return Info(mean_query=lambda i, tokens: queries)


def tokens(batch: int) -> Tokens:
    return Tokens(torch.zeros(batch, 8, 5, WIDTH), torch.zeros(batch, 1, WIDTH), torch.zeros(batch, 0, WIDTH))


def further(learned: SmopePrompts, **more: Any) -> SmopePrompts:
    prompts = make(**more)
    prompts.continue_from(learned)
    return prompts


def test_every_head_gets_the_experts_with_the_largest_scores() -> None:
    prompts, queries = shaken(make()).eval(), torch.randn(4, HEADS, DEPTH_OF_HEAD)
    state = prompts.begin(None, of_queries(queries))
    _, context = prompts.enter(2, tokens(4), state)
    assert context is not None
    assert context.keys.shape == context.values.shape == (4, HEADS, 3, DEPTH_OF_HEAD)
    for image in range(4):
        for head in range(HEADS):
            scores = (prompts.keys[1, head] @ queries[image, head]).tolist()
            best = sorted(range(7), key=scores.__getitem__, reverse=True)[:3]
            assert torch.equal(context.keys[image, head], prompts.keys[1, head, best])
            assert torch.equal(context.values[image, head], prompts.values[1, head, best])
    assert prompts.enter(1, tokens(4), state)[1] is None
    assert prompts.first(4) == 0
    assert total(prompts) == 2 * 7 * 2 * WIDTH
    assert not prompts.used.any()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_mean_query_is_the_mean_of_what_the_tokens_ask(family: str) -> None:
    backbone = make_backbone(family)
    entering = backbone.block(0, backbone.embed(draw(3)), None)
    own = backbone.attention_of(1)
    sequence = torch.cat([entering.prefix, entering.grid.flatten(1, 2)], 1)
    asked = own.qkv(own.norm(sequence))[..., :WIDTH].unflatten(-1, (own.heads, -1))
    torch.testing.assert_close(backbone.mean_query(1, entering), asked.mean(1), atol=1e-5, rtol=1e-5)


def test_attention_is_as_if_the_other_experts_were_masked() -> None:
    """The block's own sums over all experts, those that are not chosen at minus infinity."""
    backbone, prompts = make_vit(), shaken(make(blocks=(1,))).eval()
    block: Any = backbone.vit.blocks[1]
    entering = backbone.embed(draw(3))
    _, context = prompts.enter(1, entering, prompts.begin(None, Info(mean_query=backbone.mean_query)))
    found = backbone.block(1, entering, context).sequence

    sequence = torch.cat([entering.prefix, entering.grid.flatten(1, 2)], 1)
    queries, keys, values = block.attn.qkv(block.norm1(sequence)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
    of_experts = queries @ prompts.keys[0].mT
    least = of_experts.mean(2, keepdim=True).sort(-1).values[..., 7 - 3 : 7 - 2]
    of_experts = of_experts.masked_fill(of_experts.mean(2, keepdim=True) < least, -torch.inf)
    weights = (torch.cat([of_experts, queries @ keys.mT], -1) / DEPTH_OF_HEAD**0.5).softmax(-1)
    mixed = weights[..., :7] @ prompts.values[0] + weights[..., 7:] @ values
    after = sequence + block.attn.proj(mixed.transpose(1, 2).flatten(2))
    after = after + block.mlp(block.norm2(after))
    torch.testing.assert_close(found, after, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_images_do_not_matter_to_each_other(family: str) -> None:
    backbone, images, order = make_backbone(family), draw(5), [2, 0, 4, 1, 3]
    torch.manual_seed(0)
    prompts = shaken(SmopePrompts(backbone.spec, **SETTINGS)).eval()
    with torch.no_grad():
        together = flat(encode(backbone, prompts, images))
        alone = torch.cat([flat(encode(backbone, prompts, image[None])) for image in images])
        turned = flat(encode(backbone, prompts, images[order]))
        bare = flat(encode(backbone, Prompts(), images))
    assert (together - alone).abs().max() < 2e-5
    assert (together[order] - turned).abs().max() < 2e-5
    assert (together - bare).abs().max() > 0.02


def test_only_the_chosen_learn_from_the_task_and_they_are_counted() -> None:
    backbone, prompts = make_vit(), shaken(make(blocks=(3,)))
    flat(encode(backbone, prompts, draw(2))).square().sum().backward()
    chosen = prompts.used[0] > 0
    assert chosen.sum() < HEADS * 7
    assert prompts.used.sum() == 2 * HEADS * 3
    for part in (prompts.keys, prompts.values):
        assert part.grad is not None
        assert torch.equal(part.grad[0].abs().amax(-1) > 0, chosen)
    with torch.no_grad():
        encode(backbone, prompts, draw(2))
    encode(backbone, prompts.eval(), draw(2))
    assert prompts.used.sum() == 2 * HEADS * 3, "no image counts but in training, and once"


def test_the_router_raises_the_chosen_over_the_others() -> None:
    prompts, queries = shaken(make(blocks=(1,), router=0.3, keep=0.0)), torch.randn(4, HEADS, DEPTH_OF_HEAD)
    state = prompts.begin(None, of_queries(queries))
    prompts.enter(1, tokens(4), state)
    expected = []
    for image in range(4):
        for head in range(HEADS):
            scores = prompts.keys[0, head] @ queries[image, head] / DEPTH_OF_HEAD**0.5
            chosen = scores.topk(3).indices.tolist()
            margin = 0.4 * (scores.max() - scores.min()).detach()
            raised = torch.stack([s if j in chosen else s + margin for j, s in enumerate(scores)])
            expected += [F.cross_entropy(raised, torch.tensor(j)) for j in chosen]
    wanted = 0.3 * torch.stack(expected).sum() / (4 * HEADS)
    torch.testing.assert_close(prompts.penalty(state), wanted)
    torch.testing.assert_close(*(torch.autograd.grad(each, prompts.keys) for each in (prompts.penalty(state), wanted)))


def test_a_further_task_goes_on_with_what_was_learned_and_takes_other_experts() -> None:
    """Without noise the same ones are chosen; with enough of it none that were chosen often, but in training alone."""
    first, queries = shaken(make(top=2)), torch.randn(1, HEADS, DEPTH_OF_HEAD).expand(6, -1, -1)
    _, before = first.enter(0, tokens(6), first.begin(None, of_queries(queries)))
    assert before is not None
    for noise, same in ((0.0, True), (1.1, False)):
        second = further(first, top=2, noise=noise)
        assert torch.equal(second.keys, first.keys)
        assert torch.equal(second.past_keys, first.keys)
        assert second.frequent[0].sum(-1).tolist() == [2, 2]
        assert not second.frequent[1].any()
        for training in (True, False):
            second.train(training)
            _, now = second.enter(0, tokens(6), second.begin(None, of_queries(queries)))
            assert now is not None
            shared = [key in before.keys[0, 0] for key in now.keys[0, 0]]
            assert shared == [same or not training] * 2
        assert torch.equal(second.used, 2 * first.used), "counted is what the scores alone choose"
    third = further(further(first, top=2), top=2)
    assert third.frequent[0].sum(-1).tolist() == [2, 2], "what was often chosen stays so"


def test_often_is_at_least_the_mean_of_those_that_were_chosen() -> None:
    learned = make(experts=5, top=1, blocks=(0,))
    learned.used[0] = torch.tensor([[9, 1, 0, 0, 4], [6, 6, 1, 0, 0]])
    learned.frequent[0, 1, 3] = True  # of a task before
    found = further(learned, experts=5, top=1, blocks=(0,)).frequent[0]
    assert found.tolist() == [[True, False, False, False, False], [True, True, False, True, False]]


def test_keys_that_were_often_chosen_still_choose_as_they_did() -> None:
    learned = shaken(make(blocks=(0,)))
    learned.used[0, 0, [1, 4]] = 1
    prompts = further(learned, blocks=(0,), keep=0.2, router=0.0)
    state = prompts.begin(None, of_queries(torch.randn(2, HEADS, DEPTH_OF_HEAD)))
    prompts.enter(0, tokens(2), state)
    with torch.no_grad():
        prompts.keys += 0.1 * torch.randn_like(prompts.keys)
    expected = 0.0
    for j in (1, 4):
        old = learned.keys[0, 0]
        chosen = (old @ old[j]).topk(3).indices
        now = prompts.keys[0, 0] @ old[j] / DEPTH_OF_HEAD**0.5
        expected += sum(F.cross_entropy(now, k).item() for k in chosen) / 2
    assert prompts.penalty(state).item() == pytest.approx(0.2 * expected / HEADS, rel=1e-5)  # no key in the other head
    moved = torch.autograd.grad(prompts.penalty(state), prompts.keys)[0]
    assert moved[0, 0].abs().sum() > 0
    assert not moved[0, 1].any()


def test_one_pass_from_where_the_first_experts_come_in_gives_the_same() -> None:
    backbone, images = make_vit(), draw(3)
    prompts = shaken(make(blocks=(2, 3))).eval()
    assert prompts.first(DEPTH) == 2
    ran, whole = [], backbone.block
    backbone.block = lambda i, *more: (ran.append(i), whole(i, *more))[1]  # type: ignore[method-assign]
    found = encode(backbone, prompts, images)
    assert ran == list(range(DEPTH)), "no second pass"
    state = prompts.begin(None, Info(mean_query=backbone.mean_query))
    again = encode_from(frozen_below(2, backbone, images), backbone, prompts, state)
    assert torch.equal(flat(again), flat(found))


def test_what_training_leaves_behind_answers_alike_and_goes_on_alike() -> None:
    def model(prompts: SmopePrompts) -> PromptedModel:
        torch.manual_seed(3)
        return PromptedModel(make_vit(), prompts, ClassifyHead(make_vit().spec, outputs=2))

    trained, images = model(further(shaken(make()))), draw(4)
    optimizer = torch.optim.AdamW(trained.trained().values(), lr=1e-2)
    output = trained.run(images)
    assert output.penalty is not None
    (output.logits.square().mean() + output.penalty).backward()
    optimizer.step()
    loaded = model(make())
    missing = loaded.load_state_dict(trained.trained_state(), strict=False).unexpected_keys
    assert not missing
    assert torch.equal(loaded.eval()(images), trained.eval()(images))
    assert loaded.prompts.used.sum() == 2 * 4 * HEADS * 3
    ways = [further(each.prompts).state_dict() for each in (loaded, trained)]
    assert all(torch.equal(ways[0][name], value) for name, value in ways[1].items())


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValidationError, match="top 5 of 4 experts"):
        SmopeConfig(experts=4)
    with pytest.raises(VptError, match="top 9 of 7 experts"):
        make(top=9)
    with pytest.raises(ValueError, match="give Info\\(mean_query"):
        make().begin(None, Info())
