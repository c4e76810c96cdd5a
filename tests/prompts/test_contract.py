"""What holds for every prompt method on every encoder: batches, gradients, a frozen encoder, learning, precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from encoders import DEPTH, FAMILIES, draw, flat, make_backbone, shaken
from torch import Tensor

from vpt.backbones import load_backbone
from vpt.backbones.base import Backbone, BackboneSpec
from vpt.heads import MaskHead
from vpt.model import PromptedModel, encode
from vpt.prompts import (
    ConditionedPrompts,
    CrossPrompts,
    DeepPrompts,
    FourierPrompts,
    GatedPrompts,
    LowRankPrompts,
    Prompts,
    ShallowPrompts,
)

METHODS: dict[str, tuple[type[Prompts], dict[str, Any]]] = {
    "shallow": (ShallowPrompts, {"count": 3}),
    "deep": (DeepPrompts, {"count": 3}),
    "deep_shared": (DeepPrompts, {"count": 3, "shared": True}),
    "low_rank": (LowRankPrompts, {"count": 5, "rank": 2}),
    "low_rank_last": (LowRankPrompts, {"count": 5, "rank": 2, "blocks": "last:2"}),
    "gated": (GatedPrompts, {"count": 3, "gate": 0.5}),
    "gated_projected": (GatedPrompts, {"count": 3, "gate": 0.5, "project": 6}),
    "fourier": (FourierPrompts, {"count": 6, "share": 0.5}),
    "fourier_projected": (FourierPrompts, {"count": 3, "share": 1.0, "project": 6}),
    "conditioned": (ConditionedPrompts, {"count": 3, "hidden": 4, "kernel": 3}),
    "cross": (CrossPrompts, {"count": 3}),
    "cross_chosen": (CrossPrompts, {"count": 3, "blocks": [0, 3]}),
    "conditioned_chosen": (ConditionedPrompts, {"count": 3, "hidden": 4, "kernel": 2, "blocks": [0, 3]}),
}
EVERY_METHOD = pytest.mark.parametrize("method", METHODS)


@pytest.fixture(scope="module", params=FAMILIES)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return make_backbone(request.param)


def make(method: str, spec: BackboneSpec, **more: Any) -> Any:
    torch.manual_seed(1)
    kind, settings = METHODS[method]
    return kind(spec, **(settings | more))


def exact(method: str, spec: BackboneSpec) -> Any:
    """As `make`, in training as well, but without the dropout that a method has by default: it is drawn anew for
    every sample, so what two passes give would differ.
    """
    return make(method, spec, **({"dropout": 0.0} if METHODS[method][0] is ConditionedPrompts else {}))


@pytest.mark.slow
@EVERY_METHOD
def test_a_batch_equals_its_images_one_by_one(backbone: Backbone, method: str) -> None:
    prompts, images = shaken(exact(method, backbone.spec)), draw(5)

    with torch.no_grad():
        together = flat(encode(backbone, prompts, images))
        alone = torch.cat([flat(encode(backbone, prompts, image[None])) for image in images])

    assert (together - alone).abs().max() <= 2e-5
    assert (together - flat(encode(backbone, Prompts(), images))).abs().max() > 0.1


@EVERY_METHOD
def test_permuting_the_batch_permutes_the_output(backbone: Backbone, method: str) -> None:
    prompts, images, order = shaken(exact(method, backbone.spec)), draw(5), [2, 0, 4, 1, 3]

    with torch.no_grad():
        before = encode(backbone, prompts, images, levels=range(DEPTH))
        after = encode(backbone, prompts, images[order], levels=range(DEPTH))

    assert (flat(before)[order] - flat(after)).abs().max() <= 2e-5
    for a, b in zip(before.levels, after.levels, strict=True):
        assert (a[order] - b).abs().max() <= 2e-5


@EVERY_METHOD
def test_the_gradient_reaches_every_parameter(backbone: Backbone, method: str) -> None:
    prompts = shaken(make(method, backbone.spec))
    flat(encode(backbone, prompts, draw(3)))[:, ::7].square().sum().backward()

    for name, parameter in prompts.named_parameters():
        rows = parameter.grad.flatten(1) if parameter.ndim > 1 else parameter.grad[:, None]
        assert (rows.abs().amax(1) > 0).all(), name
    assert all(parameter.grad is None for parameter in backbone.parameters())


@pytest.mark.slow
@EVERY_METHOD
def test_training_leaves_the_backbone_bit_identical_and_moves_every_prompt_parameter(
    backbone: Backbone, method: str
) -> None:
    model = PromptedModel(backbone, make(method, backbone.spec), MaskHead(backbone.spec, classes=2, width=8, detail=8))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.trained().values(), lr=1e-2)
    for step in range(3):
        optimizer.zero_grad()
        model(draw(2, seed=step)).square().mean().backward()
        optimizer.step()

    for name, tensor in model.state_dict().items():
        if name.startswith("backbone."):
            assert torch.equal(tensor, before[name]), name
        elif name.startswith("prompts."):
            assert not torch.equal(tensor, before[name]), name


def bright_halves(batch: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noise with one half brighter, and which half (0: the upper)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (batch,), generator=generator)
    images = 0.5 * torch.randn(batch, 3, 64, 40, generator=generator)
    for image, label in zip(images, labels, strict=True):
        image[:, 32 * label : 32 * label + 32] += 1
    return images, labels


@pytest.mark.slow
@EVERY_METHOD
def test_prompts_alone_learn_a_small_task(backbone: Backbone, method: str) -> None:
    """The read-out is fixed, random and at first no better than chance: all that is learned the prompts learn."""
    prompts, (images, labels) = make(method, backbone.spec), bright_halves(16, seed=0)
    with torch.no_grad():
        frozen = flat(encode(backbone, Prompts(), images))
    readout = -3 * torch.randn(frozen.shape[1], 2, generator=torch.Generator().manual_seed(3)) / frozen.shape[1] ** 0.5
    optimizer = torch.optim.Adam(prompts.parameters(), lr=5e-2)
    losses = []
    for _ in range(30):
        loss = F.cross_entropy((flat(encode(backbone, prompts, images)) - frozen.mean(0)) @ readout, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.slow
@EVERY_METHOD
@pytest.mark.parametrize(("name", "size"), [("vit_micro", (48, 72)), ("sam_micro", (72, 104))])
def test_the_embedded_encoders_take_prompts_at_another_image_size(
    name: str, size: tuple[int, int], method: str
) -> None:
    backbone = load_backbone(name, image_size=size).requires_grad_(False)
    prompts, images = shaken(make(method, backbone.spec), 0.05), draw(2, size)

    with torch.no_grad():
        features, bare = encode(backbone, prompts, images), encode(backbone, Prompts(), images)

    assert features.grid.shape == bare.grid.shape == (2, backbone.spec.blocks[0].width, size[0] // 8, size[1] // 8)
    assert features.grid.isfinite().all()
    assert (features.grid - bare.grid).abs().max() > 1e-2


@EVERY_METHOD
def test_bfloat16_runs_forwards_and_backwards(backbone: Backbone, method: str) -> None:
    prompts, images = shaken(exact(method, backbone.spec), 0.1), draw(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = flat(encode(backbone, prompts, images))
        rounded.float().square().mean().backward()
    unrounded = flat(encode(backbone, prompts, images))

    assert (rounded.float() - unrounded).norm() < 0.05 * unrounded.norm()
    assert all(p.grad.isfinite().all() and p.grad.dtype == torch.float32 for p in prompts.parameters())
