"""Encoders whose blocks differ: prompts of every width, convolutions without a place for any, levels of every size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from encoders import Stages, draw, flat, shaken, total
from torch import Tensor

from vpt.backbones.base import BackboneSpec, BlockSpec, Level
from vpt.errors import VptError
from vpt.heads import ClassifyHead, MaskHead
from vpt.model import PER_PIXEL, PER_TOKEN, PromptedModel, encode, numbers_per_image
from vpt.prompts import (
    AdditivePrompts,
    ConditionedPrompts,
    CrossPrompts,
    DeepPrompts,
    FourierPrompts,
    GatedPrompts,
    LowRankPrompts,
    Prompts,
    ShallowPrompts,
    initialise,
)
from vpt.prompts.base import choose_blocks
from vpt.prompts.starts.tokens import collect_tokens, kmeans_prompts, sampled_prompts
from vpt.tasks.frozen import FrozenPrefix

SIZE, COUNT = (64, 32), 3
METHODS: dict[str, Callable[[BackboneSpec], Prompts]] = {
    "deep": lambda spec: DeepPrompts(spec, count=COUNT),
    "deep_last": lambda spec: DeepPrompts(spec, count=COUNT, blocks="last:2"),
    "low_rank": lambda spec: LowRankPrompts(spec, count=COUNT, rank=2),
    "cross": lambda spec: CrossPrompts(spec, count=COUNT),
    "fourier": lambda spec: FourierPrompts(spec, count=COUNT),
    "conditioned_last": lambda spec: ConditionedPrompts(spec, count=COUNT, blocks=[2, 3], kernel=2),
    "additive": lambda spec: AdditivePrompts(spec),
}
EVERY = pytest.mark.parametrize("method", METHODS)


@pytest.fixture(scope="module")
def backbone() -> Stages:
    return Stages()


def images(batch: int = 2) -> Tensor:
    return draw(batch, SIZE)


def model_of(backbone: Stages, method: str, levels: int = 4) -> PromptedModel:
    head = MaskHead(backbone.spec, classes=2, width=8, detail=8, levels=levels)
    return PromptedModel(backbone, shaken(METHODS[method](backbone.spec)), shaken(head))


# What the spec says


def test_the_spec_says_what_enters_and_leaves_every_block(backbone: Stages) -> None:
    spec, tokens = backbone.spec, backbone.embed(images())
    for i in range(spec.depth):
        assert tokens.grid.shape[1:] == (*spec.entered(i).grid, spec.entered(i).width)
        tokens = backbone.block(i, tokens, None)
        assert tokens.grid.shape[1:] == (*spec.left(i).grid, spec.left(i).width)
    assert backbone.finish(tokens).grid.shape[1:] == (spec.finished.width, *spec.finished.grid)
    assert (spec.depth, spec.attending, spec.has_cls) == (4, (1, 2, 3), False)


@pytest.mark.parametrize(
    ("blocks", "chosen"), [("all", (1, 2, 3)), ("last:3", (1, 2, 3)), ("last:1", (3,)), ("global", (1, 2, 3))]
)
def test_words_choose_among_the_blocks_that_attend(backbone: Stages, blocks: str, chosen: tuple[int, ...]) -> None:
    assert choose_blocks(blocks, backbone.spec) == chosen


def test_a_block_of_convolutions_is_refused_with_those_that_attend(backbone: Stages) -> None:
    said = (
        r"^prompts: block 0 of stages is made of convolutions and attends to nothing; choose among the blocks 1, 2, 3$"
    )
    with pytest.raises(VptError, match=said):
        DeepPrompts(backbone.spec, blocks=[0, 2])
    with pytest.raises(VptError, match=said):
        backbone.attention_of(0)
    with pytest.raises(VptError, match=r"expected all, global, last:K with K in 1\.\.3, or a list"):
        DeepPrompts(backbone.spec, blocks="last:4")


# Prompts


def test_prompts_are_as_wide_as_their_block_and_counted(backbone: Stages) -> None:
    spec = backbone.spec
    contexts = [DeepPrompts(spec, count=COUNT).context(i, 1) for i in range(4)]

    assert [None if context is None else tuple(context.shape) for context in contexts] == [
        None,
        (COUNT, 16),
        (COUNT, 32),
        (COUNT, 32),
    ]
    assert total(DeepPrompts(spec, count=COUNT)) == total(CrossPrompts(spec, count=COUNT)) == COUNT * (16 + 32 + 32)
    assert total(FourierPrompts(spec, count=COUNT)) == COUNT * (16 + 32 + 32)
    assert total(LowRankPrompts(spec, count=COUNT, rank=2)) == 2 * (3 * COUNT + 16 + 32 + 32)
    assert total(AdditivePrompts(spec)) == 8 * 4 * 16
    assert total(DeepPrompts(spec, count=COUNT, blocks="last:2", shared=True)) == COUNT * 32


def test_each_width_starts_within_its_own_bound(backbone: Stages) -> None:
    torch.manual_seed(0)
    prompts = DeepPrompts(backbone.spec, count=400)
    for i, width in ((1, 16), (2, 32), (3, 32)):
        bound = (6 / (3 * 8 * 8 + width)) ** 0.5
        assert 0.99 * bound < prompts.context(i, 1).abs().max() <= bound


@EVERY
def test_they_act_train_and_leave_the_encoder_alone(backbone: Stages, method: str) -> None:
    model = model_of(backbone, method)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    bare = flat(encode(backbone, Prompts(), images()))

    assert not torch.allclose(flat(model.features(images())), bare, atol=1e-3)
    logits = model(images())
    assert logits.shape == (2, 2, *SIZE)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.prompts.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


@EVERY
def test_a_batch_equals_its_images_one_by_one_and_projected_prompts_change_nothing(
    backbone: Stages, method: str
) -> None:
    model, batch = model_of(backbone, method).eval(), images(3)
    with torch.no_grad():
        together = model(batch)
        alone = torch.cat([model(image[None]) for image in batch])
        ready = model.project_prompts()(batch)

    assert (together - alone).abs().max() <= 1e-4
    assert (together - ready).abs().max() <= 1e-5


@EVERY
def test_what_was_trained_is_restored(backbone: Stages, method: str) -> None:
    model, fresh = (
        model_of(backbone, method).eval(),
        PromptedModel(backbone, METHODS[method](backbone.spec), MaskHead(backbone.spec, classes=2, width=8, detail=8)),
    )
    left = fresh.load_state_dict(model.trained_state(), strict=False)

    assert left.unexpected_keys == []
    assert torch.equal(fresh.eval()(images()), model(images()))
    counts = model.count_parameters()
    assert counts["prompts"] == total(model.prompts)
    assert counts["frozen"] == sum(p.numel() for p in backbone.parameters())


REFUSED: dict[str, tuple[Callable[[BackboneSpec], Prompts], str]] = {
    "shallow": (
        lambda spec: ShallowPrompts(spec),
        r"prompts: a prompt that travels through all blocks \(shallow\) needs blocks of one width, those of stages "
        r"have 16, 32; choose blocks of one stage, or deep prompts",
    ),
    "gated": (lambda spec: GatedPrompts(spec), r"prompts: a gate between .* \(gated\) needs blocks .* have 16, 32; "),
    "shared": (
        lambda spec: DeepPrompts(spec, shared=True),
        r"prompts: one set of prompts for all blocks \(shared\) needs blocks of one width, those of stages have 16, 32",
    ),
    "project": (
        lambda spec: DeepPrompts(spec, project=8),
        r"prompts: project needs blocks of one width, those of stages have 16, 32; leave it out",
    ),
    "project_fourier": (lambda spec: FourierPrompts(spec, project=8), r"prompts: project needs blocks of one width"),
    "conditioned": (
        lambda spec: ConditionedPrompts(spec),
        r"prompts: a bottleneck that all blocks share \(conditioned\) needs blocks of one width, those of stages have",
    ),
    "conditioned_grids": (
        lambda spec: ConditionedPrompts(replace(spec, blocks=(BlockSpec(32, 4, (8, 4)), *spec.blocks[2:]))),
        r"prompts: conditioned prompts need blocks of one grid, those of stages have \[\(8, 4\), \(4, 2\)\]",
    ),
    "kernel": (
        lambda spec: ConditionedPrompts(spec, blocks="last:2"),
        r"prompts: kernel is 3, but the image has 4x2 patches; take 1 to 2",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_has_no_form_for_blocks_that_differ_is_refused(backbone: Stages, what: str) -> None:
    build, said = REFUSED[what]
    with pytest.raises(VptError, match=f"^{said}"):
        build(backbone.spec)


# Starts


def test_tokens_are_those_that_enter_each_block(backbone: Stages) -> None:
    batch = images(4)
    entered, tokens = [], backbone.embed(batch)
    for i in range(4):
        entered.append(tokens.grid.flatten(0, 2))
        tokens = backbone.block(i, tokens, None)

    found = collect_tokens(backbone, batch.split(3), (3, 1, 2))
    some = collect_tokens(backbone, batch.split(3), (1, 2, 3), limit=10, seed=1)

    for row, expected in zip(found, entered[1:], strict=True):
        assert torch.allclose(row, expected, atol=1e-5)
    assert [tuple(row.shape) for row in some] == [(10, 16), (10, 32), (10, 32)]
    chosen = [torch.cdist(row, all_of_it).argmin(1) for row, all_of_it in zip(some, entered[1:], strict=True)]
    assert torch.equal(chosen[1], chosen[2])  # the same places where the grid is the same
    assert len(set(chosen[1].tolist())) == 10


@pytest.mark.parametrize("how", ["tokens", "kmeans", "vipamin"])
@pytest.mark.parametrize("method", ["deep", "cross", "deep_last"])
def test_prompts_start_from_the_tokens_of_their_blocks(backbone: Stages, method: str, how: Any) -> None:
    prompts: Any = METHODS[method](backbone.spec)
    torch.manual_seed(5)
    state = torch.get_rng_state()

    initialise(backbone, prompts, images(6).split(2), how)

    assert torch.equal(torch.get_rng_state(), state)
    rows = [prompts.table.row(row, 1) for row in range(len(prompts.rows))]
    if how != "vipamin":
        choose = sampled_prompts if how == "tokens" else kmeans_prompts
        expected = choose(collect_tokens(backbone, images(6).split(2), prompts.rows, 5_000), COUNT)
        assert all(torch.equal(row, start) for row, start in zip(rows, expected, strict=True))
    assert not torch.allclose(
        flat(encode(backbone, prompts, images())), flat(encode(backbone, Prompts(), images())), atol=1e-3
    )


def test_tokens_of_another_width_are_refused(backbone: Stages) -> None:
    said = r"tokens to start from are \[\(3, 16\), \(3, 16\), \(3, 32\)\], expected \[\(3, 16\), \(3, 32\), \(3, 32\)\]"
    with pytest.raises(VptError, match=said):
        DeepPrompts(backbone.spec, count=COUNT).start_from([torch.zeros(COUNT, width) for width in (16, 16, 32)])


# Heads, stored blocks, sizes


@pytest.mark.parametrize("levels", [1, 2, 4])
def test_the_mask_head_reads_levels_of_every_size(backbone: Stages, levels: int) -> None:
    head = MaskHead(backbone.spec, classes=3, width=8, detail=8, levels=levels)
    features = encode(backbone, Prompts(), images(), levels=head.levels)

    widths = [project[1].in_channels for project in head.project]
    assert widths == [level.shape[1] for level in features.levels]
    assert head(features, images()).shape == (2, 3, *SIZE)


def test_the_classify_head_reads_the_finished_width(backbone: Stages) -> None:
    model = PromptedModel(backbone, DeepPrompts(backbone.spec), ClassifyHead(backbone.spec, outputs=5))
    features = model.features(images())

    assert model(images()).shape == (2, 5)
    assert torch.equal(model.head.pool(features), features.grid.mean((2, 3)))
    with pytest.raises(VptError, match=r"head: pool is cls, but stages has no CLS token; choose mean"):
        ClassifyHead(backbone.spec, outputs=5, pool="cls")


@pytest.mark.parametrize("levels", [1, 2, 4])
@pytest.mark.parametrize("first", [1, 2, 3, 4])
def test_features_from_stored_rows_are_those_of_the_whole_encoder(backbone: Stages, first: int, levels: int) -> None:
    prompts = DeepPrompts(backbone.spec, count=COUNT, blocks=f"last:{4 - first}") if first < 4 else Prompts()
    head = MaskHead(backbone.spec, classes=2, width=8, detail=8, levels=levels)
    model = PromptedModel(backbone, prompts, head).eval()
    part, batch = FrozenPrefix(model, model.first_trained_block()), images()

    rows = part.rows(batch)
    found, whole = part.encode(rows).features, encode(backbone, prompts, batch, levels=head.levels)

    assert part.first == first
    assert rows.shape == (2, part.size)
    for a, b in zip((found.grid, found.prefix, *found.levels), (whole.grid, whole.prefix, *whole.levels), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_memory_is_that_of_the_largest_grid() -> None:
    spec = Stages().spec
    assert numbers_per_image(replace(spec, image_size=(64, 64)), 64) == PER_TOKEN * 8 * 4 * 16
    tall = replace(spec, image_size=(64, 64), blocks=(*spec.blocks[:2], BlockSpec(128, 4, (4, 2))))
    assert numbers_per_image(tall, 64) == PER_TOKEN * 4 * 2 * 128
    assert numbers_per_image(tall, 64, classes=1) > PER_TOKEN * 4 * 2 * 128 + PER_PIXEL * 64**2
    assert spec.finished == Level(32, (4, 2))
