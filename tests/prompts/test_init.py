"""SPT and VIPAMIN: prompts that start from the frozen encoder's own tokens, collected in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import pytest
import torch
from encoders import DEPTH, FAMILIES, VIT_B16, WIDTH, draw, flat, make_backbone, plain_spec
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vpt.backbones.base import Backbone
from vpt.backbones.tokens import Tokens
from vpt.errors import VptError
from vpt.model import encode
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
from vpt.prompts.base import Info
from vpt.prompts.starts import tokens as starts
from vpt.prompts.starts.random import uniform_prompts
from vpt.prompts.starts.vipamin import orthogonal_part
from vpt.prompts.starts.vipamin import vipamin_prompts as vipamin_rows

SPEC = plain_spec(width=WIDTH, depth=DEPTH)


def stacked(function: Callable[..., Sequence[Tensor]]) -> Callable[..., Tensor]:
    """The rows that it gives as one tensor: here all blocks are alike."""

    def stack(*given: Any, **options: Any) -> Tensor:
        return torch.stack(list(function(*given, **options)))

    return stack


collect_tokens = stacked(starts.collect_tokens)
sampled_prompts, kmeans_prompts = stacked(starts.sampled_prompts), stacked(starts.kmeans_prompts)
vipamin_prompts = stacked(vipamin_rows)


@pytest.fixture(scope="module", params=FAMILIES)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return make_backbone(request.param)


def everything(backbone: Backbone, images: Tensor) -> Tensor:
    """(depth, images * H * W, C): the patches that enter each block, all of them."""
    with torch.no_grad():
        tokens, entered = backbone.embed(images), []
        for i in range(DEPTH):
            entered.append(tokens.grid.flatten(0, 2))
            tokens = backbone.block(i, tokens, None)
    return torch.stack(entered)


# Collecting


def test_with_room_for_all_it_collects_every_token_of_the_frozen_encoder(backbone: Backbone) -> None:
    images = draw(5)

    found = collect_tokens(backbone, images.split(2), range(DEPTH), limit=10_000)

    assert found.shape == (DEPTH, 5 * 40, WIDTH)
    assert (found - everything(backbone, images)).abs().max() <= 1e-5
    assert not found.requires_grad


def test_the_first_blocks_patches_are_collected_before_their_position_too(backbone: Backbone) -> None:
    """That is where SPT starts; what enters the blocks that follow has been through the position embedding."""
    images = draw(5)
    (encoder,) = backbone.children()

    found = collect_tokens(backbone, images.split(2), range(DEPTH), limit=10_000, placed=False)

    embedded = encoder.patch_embed(images).detach().reshape(-1, WIDTH)  # type: ignore[operator]
    expected = torch.cat([embedded[None], everything(backbone, images)[1:]])
    assert (found - expected).abs().max() <= 1e-5
    moved = (found[0] - everything(backbone, images)[0]).abs().max()
    assert (moved > 1e-2) == (getattr(encoder, "pos_embed", None) is not None)  # not where positions are rotary alone


def test_only_the_prompted_blocks_are_collected_in_their_order(backbone: Backbone) -> None:
    images, runs = draw(2), []
    block = backbone.block

    def counted(i: int, *given: Any) -> Any:
        runs.append(i)
        return block(i, *given)

    backbone.block = counted  # type: ignore[method-assign]
    try:
        found = collect_tokens(backbone, [images], (2, 0))
    finally:
        del backbone.block

    assert (found - everything(backbone, images)[[0, 2]]).abs().max() <= 1e-5
    assert runs == [0, 1]


def places(found: Tensor, among: Tensor) -> list[int]:
    """Where the rows of (n, C) stand in (N, C)."""
    distances = torch.cdist(found, among, compute_mode="donot_use_mm_for_euclid_dist")
    assert distances.min(1).values.max() <= 1e-4
    return distances.argmin(1).tolist()


def test_no_more_than_the_limit_is_kept_of_the_same_places_in_every_block(backbone: Backbone) -> None:
    images = draw(6)
    found, all_of_them = collect_tokens(backbone, images.split(4), range(DEPTH), 50), everything(backbone, images)

    assert found.shape == (DEPTH, 50, WIDTH)
    chosen = [places(found[i], all_of_them[i]) for i in range(DEPTH)]
    assert len(set(chosen[0])) == 50
    assert all(places_ == chosen[0] for places_ in chosen)


def test_the_seed_decides_and_the_batches_do_not(backbone: Backbone) -> None:
    images = draw(6)

    def collect(batch: int, seed: int) -> Tensor:
        return collect_tokens(backbone, images.split(batch), (1,), limit=30, seed=seed)

    assert torch.equal(collect(2, 0), collect(2, 0))
    assert torch.allclose(collect(1, 0), collect(6, 0), atol=1e-5)
    assert not torch.allclose(collect(2, 0), collect(2, 1), atol=1e-2)


def test_early_and_late_images_are_as_likely_to_be_kept() -> None:
    backbone, images = make_backbone("vit"), draw(4)
    among, seen = everything(backbone, images)[0], Counter[int]()
    for seed in range(150):
        kept = collect_tokens(backbone, images.split(1), (0,), limit=20, seed=seed)[0]
        seen.update(place // 40 for place in places(kept, among))

    assert sum(seen.values()) == 3000
    assert all(seen[image] == pytest.approx(750, abs=100) for image in range(4))


def test_images_are_streamed() -> None:
    backbone, alive = make_backbone("vit"), []

    def stream() -> Iterator[Tensor]:
        for number in range(3):
            alive.append(number)
            yield draw(1, seed=number)

    assert collect_tokens(backbone, stream(), (0,), limit=7).shape == (1, 7, WIDTH)
    assert alive == [0, 1, 2]


# Choosing


def test_sampled_prompts_are_different_tokens_of_their_own_block() -> None:
    tokens = torch.randn(3, 40, WIDTH)
    prompts = sampled_prompts(tokens, 10)

    assert prompts.shape == (3, 10, WIDTH)
    for row in range(3):
        assert len(set(places(prompts[row], tokens[row]))) == 10
    assert torch.equal(prompts, sampled_prompts(tokens, 10))
    assert not torch.equal(prompts, sampled_prompts(tokens, 10, seed=1))


def test_kmeans_prompts_are_the_centres_of_clusters() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = 100 * torch.randn(2, 4, WIDTH, generator=generator)
    tokens = (centres[:, :, None] + 0.1 * torch.randn(2, 4, 25, WIDTH, generator=generator)).flatten(1, 2)
    seed = next(  # one of whose tokens lie in all clusters, as Lloyd's algorithm leaves no cluster it has
        s
        for s in range(1000)
        if all(len({p // 25 for p in places(sampled_prompts(tokens, 4, s)[row], tokens[row])}) == 4 for row in range(2))
    )

    found = kmeans_prompts(tokens, 4, steps=2, seed=seed)

    for row in range(2):
        nearest = torch.cdist(centres[row], found[row]).argmin(1)
        assert sorted(nearest.tolist()) == [0, 1, 2, 3]
        assert torch.allclose(found[row][nearest], tokens[row].unflatten(0, (4, 25)).mean(1), atol=1e-4)


def test_kmeans_is_lloyds_algorithm() -> None:
    tokens = torch.randn(1, 60, 5, generator=torch.Generator().manual_seed(1))
    centres = sampled_prompts(tokens, 6)[0].tolist()
    for _ in range(3):
        clusters: list[list[Tensor]] = [[] for _ in centres]
        for token in tokens[0]:
            distances = [(token - torch.tensor(centre)).square().sum().item() for centre in centres]
            clusters[distances.index(min(distances))].append(token)
        centres = [
            torch.stack(cluster).mean(0).tolist() if cluster else centre
            for cluster, centre in zip(clusters, centres, strict=True)
        ]

    assert torch.allclose(kmeans_prompts(tokens, 6, steps=3)[0], torch.tensor(centres), atol=1e-5)
    assert torch.equal(kmeans_prompts(tokens, 6, steps=0), sampled_prompts(tokens, 6))


def test_a_centre_without_tokens_stays_finite() -> None:
    tokens = torch.ones(1, 20, WIDTH)

    assert torch.equal(kmeans_prompts(tokens, 5), torch.ones(1, 5, WIDTH))


@pytest.mark.parametrize("choose", [sampled_prompts, kmeans_prompts])
def test_too_few_tokens_are_refused(choose: Any) -> None:
    with pytest.raises(VptError, match=r"prompts: 3 tokens were collected for 5 prompts; give more images"):
        choose(torch.zeros(2, 3, WIDTH), 5)


def test_no_images_at_all_are_refused(backbone: Backbone) -> None:
    with pytest.raises(VptError, match=r"prompts: 0 tokens were collected"):
        sampled_prompts(collect_tokens(backbone, [], (0, 1)), 5)


# Starting


@pytest.mark.parametrize("choose", [sampled_prompts, kmeans_prompts])
@pytest.mark.parametrize("blocks", ["all", "last:2"])
def test_deep_prompts_start_from_tokens_of_their_blocks_and_train(backbone: Backbone, blocks: str, choose: Any) -> None:
    prompts, images = DeepPrompts(backbone.spec, count=4, blocks=blocks), draw(4)
    table = prompts.table.tokens
    start = choose(collect_tokens(backbone, images.split(2), prompts.rows), 4)

    prompts.start_from(start)

    assert prompts.table.tokens is table
    assert table.requires_grad
    assert torch.equal(table, start)
    output = flat(encode(backbone, prompts, images))
    assert not torch.allclose(output, flat(encode(backbone, Prompts(), images)), atol=1e-3)
    output.square().sum().backward()
    assert (table.grad.abs().amax((1, 2)) > 0).all()


@pytest.mark.parametrize("kind", [ShallowPrompts, GatedPrompts])
def test_shallow_prompts_start_from_embedded_patches(backbone: Backbone, kind: type[ShallowPrompts]) -> None:
    prompts, images = kind(backbone.spec, count=4), draw(2)
    start = sampled_prompts(collect_tokens(backbone, [images], (0,)), 4)

    prompts.start_from(start)

    entered, _ = prompts.enter(0, backbone.embed(images), prompts.begin(images, Info()))
    assert torch.equal(entered.prompts, start.expand(2, -1, -1))
    places(entered.prompts[0].detach(), everything(backbone, images)[0])


@pytest.mark.parametrize("kind", [ShallowPrompts, GatedPrompts, DeepPrompts, FourierPrompts])
def test_projected_prompts_cannot_start_from_tokens(kind: Any) -> None:
    prompts = kind(SPEC, count=4, project=6)
    with pytest.raises(VptError, match=r"^prompts: they are projected, so they cannot start from tokens; leave out"):
        prompts.start_from(torch.zeros(1, 4, WIDTH))


@pytest.mark.parametrize("shape", [(4, 3, WIDTH), (1, 4, WIDTH), (4, 4, 2 * WIDTH), (4, WIDTH)])
def test_tokens_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    expected = r", ".join([r"\(4, 32\)"] * 4)
    with pytest.raises(VptError, match=rf"^prompts: tokens to start from are \[.*\], expected \[{expected}\]"):
        DeepPrompts(SPEC, count=4).start_from(torch.zeros(shape))


def test_shared_deep_prompts_are_one_set_for_every_block() -> None:
    prompts, start = DeepPrompts(VIT_B16, count=4, blocks="last:3", shared=True), torch.randn(1, 4, 768)
    prompts.start_from(start)
    tokens = Tokens(torch.zeros(2, 14, 14, 768), torch.zeros(2, 1, 768), torch.zeros(2, 0, 768))
    contexts = [prompts.enter(i, tokens, None)[1] for i in range(12)]

    assert sum(p.numel() for p in prompts.parameters()) == 4 * 768
    assert all(context is None for context in contexts[:9])
    assert all(torch.equal(context, start[0]) for context in contexts[9:])


# VIPAMIN


def draws(seed: int, *shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


@pytest.mark.parametrize("heads", [None, (1, 1), (4, 2)])
def test_vipamin_is_the_formula_written_out(heads: Any) -> None:
    """Two blocks, three prompts, seven tokens of width 16, k = 2: by plain loops and a least-squares fit."""
    tokens, drawn, keys, values = draws(0, (2, 7, 16), (2, 3, 16), (2, 16, 16), (2, 16, 16))
    found = vipamin_prompts(tokens, drawn, list(zip(keys, values, strict=True)), heads=heads, nearest=2, share=0.3)

    def key_of(x: Tensor, row: int) -> Tensor:
        """Averaged over the heads."""
        parts = (x @ keys[row].double()).chunk(heads[row] if heads else 1)
        return sum(parts[1:], parts[0]) / len(parts)

    assert found.shape == (2, 3, 16)
    for row, count in product(range(2), range(3)):
        x, prompt = tokens[row].double(), drawn[row, count].double()
        key = key_of(prompt, row)
        alike = [(key @ k / (key.norm() * k.norm())).item() for k in (key_of(token, row) for token in x)]
        first, second = sorted(range(7), key=lambda n: -alike[n])[:2]
        matched = (x[first] + x[second]) / 2
        spanned = (values[row].double() @ (x @ values[row].double()).T).T  # o is orthogonal to these: o W_V . x W_V = 0
        fit = torch.linalg.lstsq(spanned.T, prompt[:, None]).solution
        orthogonal = prompt - (spanned.T @ fit)[:, 0]
        assert torch.allclose(found[row, count].double(), 0.7 * matched + 0.3 * orthogonal, atol=1e-5)


def test_its_share_goes_from_matched_tokens_to_the_orthogonal_part() -> None:
    tokens, drawn, keys, values = draws(1, (1, 30, 16), (1, 4, 16), (16, 16), (16, 16))
    matched = vipamin_prompts(tokens, drawn, [(keys, values)], nearest=1, share=0)
    orthogonal = vipamin_prompts(tokens, drawn, [(keys, values)], share=1)

    assert set(places(matched[0], tokens[0])) <= set(range(30))
    assert torch.equal(orthogonal[0], orthogonal_part(drawn[0], tokens[0], values))
    everyone = vipamin_prompts(tokens, drawn, [(keys, values)], nearest=99, share=0)
    assert torch.allclose(everyone[0], tokens[0].mean(0).expand(4, -1), atol=1e-5)


def test_a_prompt_is_matched_in_key_space_and_by_direction() -> None:
    tokens = torch.tensor([[[1.0, 0, 0, 0], [0, 1, 0, 0], [9, 5, 0, 0]]])
    drawn, one = torch.tensor([[[1.0, 0.2, 0, 0]]]), torch.eye(4)
    ninefold = torch.diag(torch.tensor([1.0, 9, 1, 1]))  # the second axis, in key space

    assert vipamin_prompts(tokens, drawn, [(one, one)], nearest=1, share=0).tolist() == [[[1, 0, 0, 0]]]
    assert vipamin_prompts(tokens, drawn, [(ninefold, one)], nearest=1, share=0).tolist() == [[[9, 5, 0, 0]]]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    width=st.integers(4, 24),
    share=st.floats(0, 1),
    rank=st.integers(1, 24),
    scale=st.floats(0.01, 100),
)
def test_the_orthogonal_parts_value_is_orthogonal_to_every_tokens_value(
    seed: int, width: int, share: float, rank: int, scale: float
) -> None:
    count = 1 + int(share * (width // 2 - 1))  # of tokens: no more than half the width, so that all of them are spanned
    left, right, tokens, drawn = draws(seed, (width, rank), (rank, width), (count, width), (3, width))
    values = scale * left @ right  # singular where rank is below the width
    part = orthogonal_part(drawn, tokens, values).double()

    valued, of_tokens = part @ values.double(), tokens.double() @ values.double()
    assert (valued @ of_tokens.T).abs().max() <= 1e-5 * (1 + values.norm().item() ** 2) * tokens.norm()
    assert (part.norm(dim=-1) <= drawn.norm(dim=-1) * (1 + 1e-6)).all()
    assert ((drawn.double() - part) * part).sum(-1).abs().max() <= 1e-4  # the rest of the prompt is orthogonal to it


def test_where_tokens_span_everything_their_leading_directions_do() -> None:
    """1,000 tokens of width 16, most of whose values lie in 8 directions: what is left is orthogonal to those 8."""
    noise, drawn, axes = draws(2, (1000, 16), (5, 16), (16, 16))
    axes = torch.linalg.qr(axes)[0]
    tokens = noise * torch.cat([torch.full((8,), 10.0), torch.full((8,), 0.01)]) @ axes.T
    part = orthogonal_part(drawn, tokens, torch.eye(16))

    assert (part @ axes[:, :8]).abs().max() <= 1e-3
    assert (part @ axes[:, 8:] - drawn @ axes[:, 8:]).abs().max() <= 1e-2
    assert torch.equal(orthogonal_part(drawn, torch.zeros(9, 16), torch.eye(16)), drawn)


# One function for all of them


HOWS = ("tokens", "kmeans", "vipamin")
KINDS: dict[str, tuple[type[Prompts], dict[str, Any]]] = {
    "shallow": (ShallowPrompts, {}),
    "gated": (GatedPrompts, {}),
    "deep": (DeepPrompts, {}),
    "deep_chosen": (DeepPrompts, {"blocks": [3, 1]}),
    "cross": (CrossPrompts, {"blocks": "last:2"}),
}


def started(backbone: Backbone, kind: str, how: Any, seed: int = 0, batch: int = 2) -> Any:
    method, options = KINDS[kind]
    prompts: Any = method(backbone.spec, count=4, **options)  # type: ignore[call-arg]
    initialise(backbone, prompts, iter(draw(6).split(batch)), how, seed, limit=60)
    return prompts


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("kind", KINDS)
def test_prompts_are_initialised_from_their_own_blocks_tokens(backbone: Backbone, kind: str, how: str) -> None:
    prompts = started(backbone, kind, how)
    blocks = {"deep": (0, 1, 2, 3), "deep_chosen": (1, 3), "cross": (2, 3)}.get(kind, (0,))
    tokens = collect_tokens(backbone, draw(6).split(2), blocks, limit=60, placed=how == "vipamin")
    if how == "vipamin":
        heads = [backbone.spec.blocks[i].heads for i in blocks]
        assert min(heads) > 1
        drawn = uniform_prompts(len(blocks), 4, WIDTH, backbone.spec.patch, generator=torch.Generator().manual_seed(0))
        expected = vipamin_prompts(tokens, drawn, [backbone.key_value_maps(i) for i in blocks], heads=heads)
    else:
        expected = {"tokens": sampled_prompts, "kmeans": kmeans_prompts}[how](tokens, 4)

    assert torch.equal(prompts.table.tokens, expected)
    assert prompts.table.tokens.requires_grad
    output = flat(encode(backbone, prompts, draw(2)))
    assert (output - flat(encode(backbone, Prompts(), draw(2)))).abs().max() > 1e-2
    output.square().sum().backward()
    assert (prompts.table.tokens.grad.abs().amax(-1) > 0).all()


@pytest.mark.parametrize("how", HOWS)
def test_initialising_leaves_the_backbone_and_the_random_state_alone(backbone: Backbone, how: str) -> None:
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    modes = [module.training for module in backbone.modules()]
    prompts, state = DeepPrompts(backbone.spec, count=4), torch.get_rng_state()

    initialise(backbone, prompts, [draw(2)], how)  # type: ignore[arg-type]

    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in backbone.modules()] == modes
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in backbone.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


@pytest.mark.parametrize("how", HOWS)
def test_the_seed_decides_how_prompts_are_initialised(backbone: Backbone, how: str) -> None:
    def start(seed: int, rest: int) -> Tensor:
        torch.manual_seed(rest)
        return started(backbone, "deep", how, seed).table.tokens

    assert torch.equal(start(3, 0), start(3, 1))
    assert not torch.allclose(start(3, 0), start(4, 0), atol=1e-2)


def test_uniform_reads_no_image_and_changes_nothing(backbone: Backbone) -> None:
    prompts, images = ConditionedPrompts(backbone.spec, count=4), iter([draw(1)])
    before = {name: tensor.clone() for name, tensor in prompts.state_dict().items()}

    initialise(backbone, prompts, images, "uniform")

    assert len(list(images)) == 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in prompts.state_dict().items())


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Prompts, None),
        (ShallowPrompts, {"project": 6}),
        (DeepPrompts, {"project": 6}),
        (DeepPrompts, {"shared": True}),
        (AdditivePrompts, {}),
        (LowRankPrompts, {}),
        (ConditionedPrompts, {}),
    ],
)
def test_prompts_that_are_no_tokens_of_a_block_are_refused_before_an_image_is_read(
    how: Any, kind: Any, options: dict[str, Any] | None
) -> None:
    backbone, images = make_backbone("vit"), iter([draw(1)])
    prompts = kind() if options is None else kind(backbone.spec, **options)
    with pytest.raises(VptError, match=rf"^prompts: {kind.__name__} cannot start from tokens \(init {how}\), for they"):
        initialise(backbone, prompts, images, how)

    assert len(list(images)) == 1


@pytest.mark.parametrize("how", HOWS)
def test_too_few_images_are_refused(backbone: Backbone, how: Any) -> None:
    with pytest.raises(VptError, match=r"prompts: 40 tokens were collected for 41 prompts; give more images"):
        initialise(backbone, DeepPrompts(backbone.spec, count=41), [draw(1)], how)
    with pytest.raises(VptError, match=r"prompts: 0 tokens were collected for 4 prompts"):
        initialise(backbone, DeepPrompts(backbone.spec, count=4), [], how)
