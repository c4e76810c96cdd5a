"""SAM's mask decoder as the head: it starts as SAM's own, trains exactly what it says, and takes hints as SAM does."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, TwoWayTransformer
from torch import Tensor, nn

from vpt.backbones import load_backbone
from vpt.backbones.sam import SamBackbone, SamDecoder
from vpt.backbones.tokens import Features
from vpt.errors import VptError
from vpt.heads import SamDecoderHead
from vpt.model import PromptedModel, encode
from vpt.prompts import AdditivePrompts, DeepPrompts, Prompts, ShallowPrompts

NECK, BATCH, SIZE = 32, 3, (64, 48)
EVERY_COUNT = pytest.mark.parametrize("classes", [2, 3, 5])
NOTHING = (0.0, 0.0, -1.0)


def make_random(module: nn.Module) -> None:
    """Every tensor random, so that no zero bias and no unit gain hides a mistake."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))


def make_backbone(image_size: tuple[int, int] = SIZE, *, decoder: bool = True, trained: bool = True) -> SamBackbone:
    """A small SAM: an encoder of two blocks, the first windowed, and a decoder that counts as trained."""
    torch.manual_seed(0)
    encoder = ImageEncoderViT(
        img_size=64,
        patch_size=8,
        embed_dim=32,
        depth=2,
        num_heads=2,
        use_rel_pos=True,
        window_size=3,
        global_attn_indexes=(1,),
        out_chans=NECK,
    )
    two_way = TwoWayTransformer(depth=2, embedding_dim=NECK, mlp_dim=64, num_heads=2)
    whole = SamDecoder(
        PromptEncoder(NECK, (8, 8), (64, 64), mask_in_chans=16),
        MaskDecoder(transformer_dim=NECK, transformer=two_way),
        trained=trained,
    )
    for module in (encoder, whole):
        make_random(module)
    backbone = SamBackbone(
        encoder,
        whole if decoder else None,
        name="tiny",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        padding="corner",
        sha256="",
        image_size=image_size,
    )
    return backbone.requires_grad_(False)


@pytest.fixture
def backbone() -> SamBackbone:
    return make_backbone()


def draw(backbone: SamBackbone, batch: int = BATCH) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(batch, 3, *backbone.spec.image_size)


def draw_hints(batch: int = BATCH) -> Tensor:
    """A box, points and nothing in turn, so that a batch holds every kind, each image its own."""
    each = [
        [(5.0, 7.0, 2.0), (40.0, 50.5, 3.0), NOTHING],
        [(20.0, 30.0, 1.0), (3.5, 60.0, 0.0), NOTHING],
        [NOTHING, NOTHING, NOTHING],
    ]
    return torch.tensor([each[b % 3] for b in range(batch)])


def features_of(backbone: SamBackbone, images: Tensor) -> Features:
    with torch.no_grad():
        return encode(backbone, Prompts(), images)


def copy_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def changed(module: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}


# What it gives


@pytest.mark.slow
@EVERY_COUNT
@pytest.mark.parametrize("refine", [True, False])
@pytest.mark.parametrize("hints", [True, False])
@pytest.mark.parametrize("image_size", [(64, 48), (32, 32), (24, 72)])
def test_logits_have_the_size_of_the_image(
    classes: int, refine: bool, hints: bool, image_size: tuple[int, int]
) -> None:
    backbone = make_backbone(image_size)
    head = SamDecoderHead(backbone, classes=classes, refine=refine, hints=hints)
    model, images = PromptedModel(backbone, Prompts(), head), draw(backbone)

    assert head.takes_hints is hints
    for given in (None, draw_hints()) if hints else (None,):
        logits = model(images, given)
        assert logits.shape == (BATCH, classes, *image_size)
        assert torch.isfinite(logits).all()


def sams_own_masks(backbone: SamBackbone, head: SamDecoderHead, grid: Tensor, sparse: Tensor) -> Tensor:
    """`predict_masks` of segment_anything, image by image, with the head's tokens and kernels in place of its four."""
    found: Any = backbone.decoder
    classes = len(head.class_tokens)
    decoder: Any = MaskDecoder(
        transformer_dim=NECK,
        transformer=copy.deepcopy(found.mask_decoder.transformer),
        num_multimask_outputs=classes - 1,
    )
    decoder.output_upscaling = found.mask_decoder.output_upscaling
    decoder.iou_token = found.mask_decoder.iou_token
    decoder.mask_tokens.load_state_dict({"weight": head.class_tokens})
    decoder.output_hypernetworks_mlps.load_state_dict(head.kernels.state_dict())
    _, dense = found.prompt_encoder(None, None, None)
    place = found.prompt_encoder.get_dense_pe()
    with torch.no_grad():
        masks = [
            decoder.predict_masks(image[None], place, own[None], dense)[0]
            for image, own in zip(grid, sparse, strict=True)
        ]
    return torch.cat(masks)


def enlarged(masks: Tensor, images: Tensor) -> Tensor:
    return F.interpolate(masks, size=images.shape[-2:], mode="bilinear", align_corners=False)


@EVERY_COUNT
def test_the_start_is_sams_own_mask_and_a_background_of_zero(backbone: SamBackbone, classes: int) -> None:
    head, images = SamDecoderHead(backbone, classes=classes, tune="tokens", refine=True), draw(backbone)
    features = features_of(backbone, images)
    single: Any = backbone.decoder.mask_decoder
    sams = copy.deepcopy(head)  # tokens and kernels: SAM's own for a single mask, for every class
    sams.class_tokens.data = single.mask_tokens.weight[:1].detach().repeat(classes, 1)
    for kernel in sams.kernels:
        kernel.load_state_dict(single.output_hypernetworks_mlps[0].state_dict())
    nothing = torch.empty(BATCH, 0, NECK)
    expected = enlarged(sams_own_masks(backbone, sams, features.grid, nothing), images)

    with torch.no_grad():
        logits = head(features, images)

    assert (logits[:, 0] == 0).all()
    assert (logits[:, 1:] - expected[:, :1]).abs().max() <= 1e-5
    assert expected.abs().max() > 0.1


@EVERY_COUNT
def test_classes_stand_where_sams_mask_tokens_stand(backbone: SamBackbone, classes: int) -> None:
    head, images = SamDecoderHead(backbone, classes=classes, refine=False), draw(backbone)
    features = features_of(backbone, images)
    with torch.no_grad():
        head.class_tokens.normal_()
    make_random(head.kernels)
    expected = enlarged(sams_own_masks(backbone, head, features.grid, torch.empty(BATCH, 0, NECK)), images)

    with torch.no_grad():
        logits = head(features, images)

    assert (logits - expected).abs().max() <= 1e-5
    assert (logits[:, 0] - logits[:, 1]).abs().max() > 0.1


def test_refinement_is_added_and_sees_image_and_logits(backbone: SamBackbone) -> None:
    head, images = SamDecoderHead(backbone, classes=3), draw(backbone)
    features = features_of(backbone, images)
    with torch.no_grad():
        before = head(features, images)
        make_random(head.refine)
        after = head(features, images)
        other_image = head(features, images.flip(-1))
        head.kernels[1].layers[-1].bias.add_(1)
        other_logits = head(features, images)

    assert (after - before).abs().max() > 0.1
    assert (other_image - after).abs().max() > 0.1
    assert (other_logits - after)[:, [0, 2]].abs().max() > 0.1  # through the refinement only


@pytest.mark.slow
@pytest.mark.parametrize("hints", [True, False])
def test_a_batch_equals_its_images_one_by_one_and_its_order_does_not_matter(backbone: SamBackbone, hints: bool) -> None:
    head = SamDecoderHead(backbone, classes=3, hints=hints)
    make_random(head)
    model = PromptedModel(backbone, ShallowPrompts(backbone.spec, count=2), head)
    images, given = draw(backbone, batch=6), draw_hints(6) if hints else None
    order = [3, 0, 5, 1, 4, 2]

    with torch.no_grad():
        together = model(images, given)
        alone = torch.cat([model(images[b, None], None if given is None else given[b, None]) for b in range(6)])
        permuted = model(images[order], None if given is None else given[order])

    largest = together.abs().max().clamp(min=1)
    assert (together - alone).abs().max() <= 1e-5 * largest
    assert (together[order] - permuted).abs().max() <= 1e-5 * largest
    if given is not None:
        assert (together - model(images)).abs().amax((1, 2, 3))[0] > 0.01  # a box says something


# Hints


def test_points_are_embedded_as_sam_does_with_its_padding_point(backbone: SamBackbone) -> None:
    head = SamDecoderHead(backbone, classes=2, hints=True)
    points = torch.tensor([[(3.0, 5.5), (40.0, 60.0)], [(0.0, 0.0), (47.0, 63.0)]])
    kinds = torch.tensor([[1, 0], [0, 1]])

    found = head.embed_hints(torch.cat([points, kinds[..., None]], -1), 2)

    expected, _ = backbone.decoder.prompt_encoder((points, kinds), None, None)
    assert found.shape == (2, 3, NECK)
    assert (found - expected).abs().max() <= 1e-6


def test_more_points_with_nothing_after_them_are_embedded_as_sam_does(backbone: SamBackbone) -> None:
    head = SamDecoderHead(backbone, classes=2, hints=True)
    points, kinds = torch.rand(2, 5, 2) * 48, torch.tensor([[1, 0, 1, 1, 0], [0, 0, 1, 0, 1]])
    hints = torch.cat([points, kinds[..., None]], -1)

    found = head.embed_hints(torch.cat([hints, torch.tensor(NOTHING).expand(2, 1, 3)], 1), 2)

    expected, _ = backbone.decoder.prompt_encoder((points, kinds), None, None)
    assert found.shape == (2, 6, NECK)
    assert (found - expected).abs().max() <= 1e-6


def test_boxes_are_embedded_as_sam_does(backbone: SamBackbone) -> None:
    head = SamDecoderHead(backbone, classes=2, hints=True)
    boxes = torch.tensor([(5.0, 7.5, 40.0, 60.0), (0.0, 0.0, 47.0, 63.0)])
    corners = torch.cat([boxes.view(2, 2, 2), torch.tensor([2.0, 3.0]).view(1, 2, 1).expand(2, 2, 1)], -1)

    found = head.embed_hints(corners, 2)

    expected, _ = backbone.decoder.prompt_encoder(None, boxes, None)
    assert (found[:, :2] - expected).abs().max() <= 1e-6
    assert torch.equal(found[:, 2], backbone.decoder.prompt_encoder.not_a_point_embed.weight.expand(2, NECK))


def test_points_and_a_box_together_are_embedded_as_sam_does(backbone: SamBackbone) -> None:
    head = SamDecoderHead(backbone, classes=2, hints=True)
    points, kinds = torch.tensor([[(3.0, 5.5)], [(40.0, 60.0)]]), torch.tensor([[1], [0]])
    boxes = torch.tensor([(5.0, 7.5, 40.0, 60.0), (0.0, 0.0, 47.0, 63.0)])
    corners = torch.cat([boxes.view(2, 2, 2), torch.tensor([2.0, 3.0]).view(1, 2, 1).expand(2, 2, 1)], -1)

    found = head.embed_hints(torch.cat([torch.cat([points, kinds[..., None]], -1), corners], 1), 2)

    expected, _ = backbone.decoder.prompt_encoder((points, kinds), boxes, None)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-6


def test_the_mask_under_hints_is_sams_own(backbone: SamBackbone) -> None:
    head, images = SamDecoderHead(backbone, classes=3, hints=True), draw(backbone)
    features = features_of(backbone, images)
    points, kinds = torch.rand(BATCH, 2, 2) * 48, torch.tensor([[1, 0], [0, 1], [1, 1]])
    sparse, _ = backbone.decoder.prompt_encoder((points, kinds), None, None)
    expected = enlarged(sams_own_masks(backbone, head, features.grid, sparse), images)

    with torch.no_grad():
        logits = head(features, images, torch.cat([points, kinds[..., None]], -1))

    assert (logits - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("count", [1, 2, 3])
def test_no_hints_equal_hints_of_nothing_wherever_they_point(backbone: SamBackbone, count: int) -> None:
    head, images = SamDecoderHead(backbone, classes=3, hints=True), draw(backbone)
    features = features_of(backbone, images)
    nothing = torch.tensor([17.0, 9.0, -1.0]).expand(BATCH, count, 3)

    with torch.no_grad():
        assert torch.equal(head(features, images), head(features, images, nothing))


def test_hints_are_refused_by_a_head_that_takes_none(backbone: SamBackbone) -> None:
    model = PromptedModel(backbone, Prompts(), SamDecoderHead(backbone, classes=2))

    with pytest.raises(ValueError, match="takes no boxes or points"):
        model(draw(backbone), draw_hints())


# What trains


def names_of(classes: int, refine: bool) -> set[str]:
    """Class tokens, kernels and refinement, by name."""
    names = {"class_tokens"}
    names |= {f"kernels.{k}.layers.{i}.{part}" for k in range(classes) for i in range(3) for part in ("weight", "bias")}
    if refine:
        for part in ("image", "both"):
            names |= {f"refine.{part}.0.weight", f"refine.{part}.1.weight", f"refine.{part}.1.bias"}
        names |= {"refine.out.weight", "refine.out.bias"}
    return names


@pytest.mark.parametrize("refine", [True, False])
@pytest.mark.parametrize("hints", [True, False])
def test_tokens_trains_exactly_class_tokens_kernels_and_refinement(
    backbone: SamBackbone, refine: bool, hints: bool
) -> None:
    head = SamDecoderHead(backbone, classes=3, tune="tokens", refine=refine, hints=hints)
    model = PromptedModel(backbone, Prompts(), head)

    assert set(model.trained()) == {f"head.{name}" for name in names_of(3, refine)}


@pytest.mark.parametrize("refine", [True, False])
@pytest.mark.parametrize("hints", [True, False])
def test_decoder_trains_transformer_upscaling_and_every_embedding_as_well(
    backbone: SamBackbone, refine: bool, hints: bool
) -> None:
    head = SamDecoderHead(backbone, classes=3, tune="decoder", refine=refine, hints=hints)
    model = PromptedModel(backbone, Prompts(), head)
    whole: Any = backbone.decoder.mask_decoder

    expected = names_of(3, refine) | {"no_mask.weight", "quality_token.weight"}
    expected |= {f"transformer.{name}" for name, _ in whole.transformer.named_parameters()}
    expected |= {f"upscale.{name}" for name, _ in whole.output_upscaling.named_parameters()}
    if hints:
        expected |= {f"hint_kinds.{kind}.weight" for kind in range(5)}
    assert set(model.trained()) == {f"head.{name}" for name in expected}
    assert set(dict(head.named_parameters())) == expected


PROMPTS = {
    "none": lambda spec: Prompts(),
    "shallow": lambda spec: ShallowPrompts(spec, count=2),
    "deep": lambda spec: DeepPrompts(spec, count=2),
    "additive": lambda spec: AdditivePrompts(spec),
}


@pytest.mark.slow
@pytest.mark.parametrize("tune", ["tokens", "decoder"])
@pytest.mark.parametrize("method", PROMPTS)
def test_after_three_steps_all_that_trains_has_changed_and_nothing_else(
    backbone: SamBackbone, method: str, tune: Any
) -> None:
    head = SamDecoderHead(backbone, classes=3, tune=tune, hints=True)
    model, images = PromptedModel(backbone, PROMPTS[method](backbone.spec), head), draw(backbone)
    torch.manual_seed(3)
    classes = torch.randint(3, (BATCH, *SIZE))
    optimizer = torch.optim.AdamW(model.trained().values(), lr=1e-2, weight_decay=0)
    before, own = copy_of(model), copy_of(backbone.decoder)

    for _ in range(3):  # at first zeros hide what lies below them: the background's kernel and the refinement's end
        F.cross_entropy(model(images, draw_hints()), classes).backward()
        optimizer.step()
        optimizer.zero_grad()

    assert changed(model, before) == set(model.trained())
    assert not any(name.startswith("backbone.") for name in changed(model, before))
    assert changed(backbone.decoder, own) == set()
    assert all(parameter.grad is None for parameter in backbone.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("tune", ["tokens", "decoder"])
def test_the_first_step_moves_every_tensor_that_the_loss_reaches(backbone: SamBackbone, tune: Any) -> None:
    model = PromptedModel(
        backbone, DeepPrompts(backbone.spec, count=2), SamDecoderHead(backbone, classes=2, tune=tune, hints=True)
    )
    before = copy_of(model)
    optimizer = torch.optim.AdamW(model.trained().values(), lr=1e-2, weight_decay=0)
    model(draw(backbone), draw_hints()).square().mean().backward()
    reached = {name for name, p in model.trained().items() if p.grad is not None and p.grad.abs().sum() > 0}

    optimizer.step()

    assert changed(model, before) == reached
    assert {"head.class_tokens", "prompts.table.tokens", "head.kernels.1.layers.0.weight"} <= reached


@pytest.mark.parametrize("tune", ["tokens", "decoder"])
def test_neither_mode_freezes_the_head(backbone: SamBackbone, tune: Any) -> None:
    model = PromptedModel(backbone, Prompts(), SamDecoderHead(backbone, classes=2, tune=tune))
    images, trained = draw(backbone), set(model.trained())

    for mode in (model.train, model.eval, model.train):
        mode()
        assert set(model.trained()) == trained
        assert not any(module.training for module in backbone.modules())
    assert torch.equal(model.train()(images), model.eval()(images))


def test_a_frozen_checkpoint_still_gives_a_head_that_trains(backbone: SamBackbone) -> None:
    backbone.decoder.requires_grad_(False)

    head = SamDecoderHead(backbone, classes=2, tune="decoder", hints=True)

    assert all(parameter.requires_grad for parameter in head.parameters())
    assert not any(parameter.requires_grad for parameter in backbone.decoder.parameters())


def test_two_heads_share_nothing(backbone: SamBackbone) -> None:
    first, second = (SamDecoderHead(backbone, classes=3, hints=True) for _ in range(2))
    tensors = [*first.state_dict().values(), *second.state_dict().values(), *backbone.decoder.state_dict().values()]

    assert len({tensor.data_ptr() for tensor in tensors}) == len(tensors)


@pytest.mark.slow
def test_sam_micro_learns_a_square() -> None:
    backbone = load_backbone("sam_micro", image_size=32)
    torch.manual_seed(0)
    model = PromptedModel(backbone, DeepPrompts(backbone.spec, count=2), SamDecoderHead(backbone, classes=2))
    images, classes = 0.1 * torch.randn(4, 3, 32, 32), torch.zeros(4, 32, 32, dtype=torch.long)
    for b in range(4):
        classes[b, 4 * b : 4 * b + 12, 8:20] = 1
    images += classes[:, None]
    optimizer = torch.optim.AdamW(model.trained().values(), lr=2e-3)

    for _ in range(40):
        loss = F.cross_entropy(model(images), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    mask = model.eval()(images).argmax(1)
    assert 2 * (mask * classes).sum() / (mask.sum() + classes.sum()) > 0.9


# What it refuses


def test_a_backbone_that_is_not_sams_is_refused() -> None:
    with pytest.raises(VptError, match=r"head: the SAM decoder needs a Segment Anything backbone, found vit_micro; .*"):
        SamDecoderHead(load_backbone("vit_micro", weights="random"), classes=2)


def test_weights_of_an_encoder_only_are_refused() -> None:
    with pytest.raises(VptError, match=r"head: the weights of tiny hold an encoder only.*head\.kind: mask"):
        SamDecoderHead(make_backbone(decoder=False), classes=2)


def test_tokens_alone_with_a_decoder_that_no_one_has_trained_are_refused() -> None:
    backbone = make_backbone(trained=False)

    with pytest.raises(VptError, match=r"head: tune: tokens .* tiny is random; choose head\.tune: decoder"):
        SamDecoderHead(backbone, classes=2, tune="tokens")
    SamDecoderHead(backbone, classes=2, tune="decoder")


# --- from a head for other labels -------------------------------------------------------------------------------------


def started(rows: Sequence[int | None]) -> tuple[SamDecoderHead, SamDecoderHead, SamBackbone]:
    """A head for three labels that has learned something, and one that starts from it."""
    backbone = make_backbone()
    learned, head = (SamDecoderHead(backbone, classes=count, tune="decoder") for count in (3, len(rows)))
    make_random(learned)
    head.start_from(learned, rows)
    return learned.eval(), head.eval(), backbone


def test_labels_in_another_order_are_answered_as_before() -> None:
    learned, head, backbone = started((0, 2, 1))
    images = torch.randn(BATCH, 3, *SIZE)
    given = encode(backbone, Prompts(), images)
    torch.testing.assert_close(head(given, images), learned(given, images)[:, [0, 2, 1]])


def test_old_labels_keep_token_kernel_and_refinement_and_a_new_one_starts_as_sams_first_token() -> None:
    learned, head, backbone = started((0, None, 2, 1))
    for new, old in ((0, 0), (2, 2), (3, 1)):
        assert torch.equal(head.class_tokens[new], learned.class_tokens[old])
        ours, theirs = head.kernels[new].state_dict(), learned.kernels[old].state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert torch.equal(head.class_tokens[1], backbone.decoder.mask_decoder.mask_tokens.weight[0])
    ours, sams = (
        net.state_dict() for net in (head.kernels[1], backbone.decoder.mask_decoder.output_hypernetworks_mlps[0])
    )
    assert all(torch.equal(ours[name], sams[name]) for name in sams)
    images, logits = torch.randn(BATCH, 3, *SIZE), torch.randn(BATCH, 4, *SIZE)
    now, before = head.refine(images, logits), learned.refine(images, logits[:, [0, 3, 2]])
    torch.testing.assert_close(now[:, [0, 3, 2]], before)
