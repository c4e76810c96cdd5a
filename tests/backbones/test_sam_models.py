"""Segment Anything by name: its published structure, files in the official layout, and the embedded `sam_micro`."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from encoders import windowed
from segment_anything import sam_model_registry
from segment_anything.modeling import Sam
from torch import Tensor

from vpt.backbones import load_backbone
from vpt.backbones.families import family_of
from vpt.backbones.options import SamOptions
from vpt.backbones.sam import SamBackbone
from vpt.backbones.sam_models import CHECKPOINTS, SIZES, Size, build_sam, is_sam
from vpt.backbones.tokens import Tokens
from vpt.errors import VptError
from vpt.heads import SamDecoderHead
from vpt.model import PromptedModel, encode
from vpt.prompts import DeepPrompts, Prompts

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def draw(backbone: Any, batch: int = 2) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(batch, 3, *backbone.spec.image_size)


# The published sizes


@pytest.mark.slow
def test_sam_vit_b_has_its_published_structure() -> None:
    backbone: Any = load_backbone("sam_vit_b", weights="random")
    spec = backbone.spec

    assert (spec.name, spec.depth, spec.finished) == ("sam_vit_b", 12, (256, (64, 64)))
    assert {(block.width, block.heads, block.grid) for block in spec.blocks} == {(768, 12, (64, 64))}
    assert (spec.image_size, spec.patch, spec.finished.grid, spec.prefix) == ((1024, 1024), (16, 16), (64, 64), 0)
    assert windowed(spec) == (0, 1, 3, 4, 6, 7, 9, 10)
    assert [block.window_size for block in backbone.encoder.blocks] == [14, 14, 0] * 4
    assert (spec.mean, spec.std, spec.padding) == (*IMAGENET, "corner")
    assert sum(parameter.numel() for parameter in backbone.parameters()) == 89_670_912
    assert backbone.decoder.trained is False
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not any(module.training for module in backbone.modules())
    assert DeepPrompts(spec, count=8).table.tokens.numel() == 73_728


@pytest.mark.parametrize("size", SIZES)
def test_every_size_is_the_one_that_segment_anything_builds(size: str) -> None:
    with torch.device("meta"):
        ours = build_sam(SIZES[size], 1024)
        theirs = sam_model_registry[f"vit_{size}"]()

    def shapes(sam: Sam) -> dict[str, Any]:
        return {name: tuple(tensor.shape) for name, tensor in sam.state_dict().items()}

    assert shapes(ours) == shapes(theirs)
    for own, its in zip(ours.image_encoder.blocks, theirs.image_encoder.blocks, strict=True):
        assert (own.window_size, own.attn.num_heads, own.norm1.eps) == (its.window_size, its.attn.num_heads, 1e-6)
    for own, its in zip(ours.mask_decoder.transformer.layers, theirs.mask_decoder.transformer.layers, strict=True):
        assert own.self_attn.num_heads == its.self_attn.num_heads


@pytest.mark.parametrize("name", ["samvit_base_patch16.sa1b", "samvit_huge_patch16", *CHECKPOINTS])
def test_names_of_segment_anything_are_known(name: str) -> None:
    assert family_of(name).name == ("sam_micro" if name == "sam_micro" else "sam")
    assert family_of(name).options is SamOptions


@pytest.mark.parametrize("name", ["vit_micro", "vit_base_patch16_224", "sam_vit_x", "samvit_base_patch16_224"])
def test_other_names_are_not(name: str) -> None:
    assert not is_sam(name)


@pytest.mark.parametrize(("name", "meant"), [("sam_vit_bb", "sam_vit_b"), ("sam_mikro", "sam_micro")])
def test_a_name_nearly_right_is_suggested(name: str, meant: str) -> None:
    with pytest.raises(VptError, match=rf"backbone {name}: no such model or folder; did you mean .*{meant}"):
        load_backbone(name)


# Files: the loader as it is, over an encoder and a decoder of a small size


SMALL = Size(width=32, depth=4, heads=2, global_blocks=(1, 3))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Size "b" is small, and everything else of a checkpoint as it is."""
    monkeypatch.setitem(SIZES, "b", SMALL)


def random_state(image_size: int = 64) -> dict[str, Tensor]:
    """A state dict in the official layout with every value random."""
    state = build_sam(SMALL, image_size).state_dict()
    generator = torch.Generator().manual_seed(5)
    return {name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator) for name, tensor in state.items()}


def encoder_of(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if name.startswith("image_encoder.")}


@pytest.mark.usefixtures("small")
def test_a_file_gives_every_tensor_of_encoder_and_decoder(tmp_path: Path) -> None:
    state, path = random_state(), tmp_path / "sam.pth"
    torch.save(state, path)

    backbone: Any = load_backbone("sam_vit_b", weights=path)

    found = {f"image_encoder.{name}": tensor for name, tensor in backbone.encoder.state_dict().items()}
    for part in ("prompt_encoder", "mask_decoder"):
        tensors = getattr(backbone.decoder, part).state_dict()
        found |= {f"{part}.{name}": tensor for name, tensor in tensors.items()}
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)
    assert backbone.decoder.trained
    assert backbone.spec.image_size == (64, 64)  # of its position embedding
    SamDecoderHead(backbone, classes=2, tune="tokens")


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_the_identity_of_weights_does_not_depend_on_how_they_are_used(tmp_path: Path) -> None:
    state, path = random_state(), tmp_path / "sam.pth"
    torch.save(state, path)
    first = load_backbone("sam_vit_b", weights=path).sha256

    assert load_backbone("sam_vit_b", weights=path, image_size=(96, 32), attention="original").sha256 == first
    state["mask_decoder.iou_token.weight"] += 1
    torch.save(state, path)
    assert load_backbone("sam_vit_b", weights=path).sha256 != first


@pytest.mark.usefixtures("small")
def test_a_file_of_an_encoder_only_has_no_decoder(tmp_path: Path) -> None:
    state, path = random_state(), tmp_path / "encoder.pth"
    torch.save(encoder_of(state), path)

    backbone: Any = load_backbone("sam_vit_b", weights=path)

    assert backbone.decoder is None
    assert all(torch.equal(state[f"image_encoder.{k}"], v) for k, v in backbone.encoder.state_dict().items())
    with pytest.raises(VptError, match="hold an encoder only"):
        SamDecoderHead(backbone, classes=2)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("sam_vit_b", *IMAGENET),
        ("medsam_vit_b", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        ("sam_med2d_vit_b", *IMAGENET),
        ("samvit_base_patch16.sa1b", *IMAGENET),
    ],
)
def test_preprocessing_belongs_to_the_checkpoint(tmp_path: Path, name: str, mean: Any, std: Any) -> None:
    torch.save(random_state(), tmp_path / "sam.pth")

    spec = load_backbone(name, weights=tmp_path / "sam.pth").spec

    assert (spec.name, spec.mean, spec.std, spec.padding) == (name, mean, std, "corner")


@pytest.mark.usefixtures("small")
def test_adapters_that_are_left_out_are_said(tmp_path: Path) -> None:
    state, path = random_state(), tmp_path / "med2d.pth"
    key = "image_encoder.blocks.0.Adapter.channel.0.weight"
    torch.save({"model": state | {key: torch.zeros(8, 32)}}, path)

    with pytest.warns(UserWarning, match=r"med2d\.pth: .*Adapter\.channel.* left out"):
        backbone = load_backbone("sam_med2d_vit_b", weights=path)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.save(state, path)
        assert load_backbone("sam_med2d_vit_b", weights=path).sha256 == backbone.sha256


@pytest.mark.usefixtures("small")
def test_keys_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    state, path = random_state(), tmp_path / "sam.pth"
    state["image_encoder.extra"] = state.pop("image_encoder.blocks.2.norm1.bias")
    state["mask_decoder.iou_token.weight"] = torch.zeros(1, 7)
    torch.save(state, path)

    with pytest.raises(VptError) as refusal:
        load_backbone("sam_vit_b", weights=path)

    for part in (
        "sam.pth: does not fit sam_vit_b",
        "missing keys: image_encoder.blocks.2.norm1.bias",
        "left-over keys: image_encoder.extra",
        "mask_decoder.iou_token.weight (found (1, 7), expected (1, 256))",
    ):
        assert part in str(refusal.value)


@pytest.mark.usefixtures("small")
def test_the_decoder_knows_the_size_of_the_image(tmp_path: Path) -> None:
    torch.save(random_state(), tmp_path / "sam.pth")

    backbone: Any = load_backbone("sam_vit_b", weights=tmp_path / "sam.pth", image_size=(96, 32))

    prompt_encoder = backbone.decoder.prompt_encoder
    assert (prompt_encoder.input_image_size, prompt_encoder.image_embedding_size) == ((96, 32), (6, 2))
    assert prompt_encoder.mask_input_size == (24, 8)
    assert prompt_encoder.get_dense_pe().shape == (1, 256, 6, 2)


# sam_micro


@pytest.fixture(scope="module")
def micro() -> Any:
    return load_backbone("sam_micro")


@pytest.fixture(scope="module")
def vit() -> Any:
    return load_backbone("vit_micro").vit


def test_sam_micro_is_small_and_half_windowed(micro: Any) -> None:
    spec = micro.spec

    assert (spec.name, spec.depth, spec.finished) == ("sam_micro", 8, (128, (16, 16)))
    assert {(block.width, block.heads, block.grid) for block in spec.blocks} == {(128, 4, (16, 16))}
    assert (spec.image_size, spec.patch, spec.finished.grid, spec.prefix) == ((128, 128), (8, 8), (16, 16), 0)
    assert windowed(spec) == (0, 2, 4, 6)
    assert (spec.mean, spec.std, spec.padding) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "corner")
    assert micro.decoder.trained is False
    assert not any(parameter.requires_grad for parameter in micro.parameters())
    assert not any(module.training for module in micro.modules())


def test_sam_micro_starts_from_the_micro_vit(micro: Any, vit: Any) -> None:
    encoder = micro.encoder.state_dict()

    for name, tensor in vit.state_dict().items():
        if name.startswith(("patch_embed.", "blocks.")):
            assert torch.equal(encoder[name.replace(".mlp.fc", ".mlp.lin")], tensor)
    tables = [tensor for name, tensor in encoder.items() if "rel_pos" in name]
    assert len(tables) == 2 * 8
    assert not any(table.any() for table in tables)


def test_at_the_vits_size_its_positions_are_nearly_the_vits_own(vit: Any) -> None:
    backbone: Any = load_backbone("sam_micro", image_size=64)
    own = vit.pos_embed[:, 1:].unflatten(1, (8, 8))

    assert backbone.encoder.pos_embed.shape == own.shape
    assert F.cosine_similarity(backbone.encoder.pos_embed.flatten(), own.flatten(), dim=0) > 0.95


@pytest.mark.parametrize("attention", ["original", "fused"])
def test_a_block_of_sam_micro_computes_what_the_vits_block_does(vit: Any, attention: Any) -> None:
    backbone: Any = load_backbone("sam_micro", image_size=64, attention=attention)  # where a window is the whole grid
    torch.manual_seed(1)
    grid, none = torch.randn(2, 8, 8, 128), torch.empty(2, 0, 128)

    for i, block in enumerate(vit.blocks):
        found = backbone.block(i, Tokens(grid, prefix=none, prompts=none), None).grid
        assert (found.flatten(1, 2) - block(grid.flatten(1, 2))).abs().max() <= 1e-4


def test_the_neck_of_sam_micro_passes_the_tokens_on(micro: Any, vit: Any) -> None:
    torch.manual_seed(1)
    grid, none = 3 * torch.randn(2, 16, 16, 128), torch.empty(2, 0, 128)

    found = micro.finish(Tokens(grid, prefix=none, prompts=none)).grid

    normed = F.layer_norm(vit.norm(grid), (128,), eps=1e-6)
    assert (found - normed.permute(0, 3, 1, 2)).abs().max() <= 1e-5


@pytest.mark.slow
def test_sam_micro_is_always_the_same_and_leaves_the_random_state_alone(micro: Any) -> None:
    torch.manual_seed(7)
    before = torch.random.get_rng_state()

    again: Any = load_backbone("sam_micro")

    assert torch.equal(torch.random.get_rng_state(), before)
    assert again.sha256 == micro.sha256
    for own, its in ((again, micro), (again.decoder, micro.decoder)):
        assert all(torch.equal(tensor, its.state_dict()[name]) for name, tensor in own.state_dict().items())
    assert load_backbone("sam_micro", image_size=64).sha256 == micro.sha256


def test_the_random_control_differs_in_the_encoder_and_is_always_the_same(micro: Any) -> None:
    first, second = (load_backbone("sam_micro", weights="random") for _ in range(2))

    assert first.sha256 == second.sha256 != micro.sha256
    state = first.state_dict()
    differs = {name for name, tensor in micro.state_dict().items() if not torch.equal(tensor, state[name])}
    assert {f"encoder.blocks.{i}.attn.qkv.weight" for i in range(8)} < differs
    assert "encoder.patch_embed.proj.weight" in differs


@pytest.mark.parametrize("image_size", [64, 128, 72, (96, 40), 8])
def test_sam_micro_takes_any_image_size_of_whole_patches(image_size: Any) -> None:
    backbone: Any = load_backbone("sam_micro", image_size=image_size, attention="original")
    images = draw(backbone)

    features = encode(backbone, Prompts(), images)

    assert torch.equal(features.grid, backbone.encoder(images))
    assert features.grid.shape == (2, 128, *backbone.spec.finished.grid)
    assert torch.isfinite(features.grid).all()


@pytest.mark.parametrize("image_size", [60, (64, 60), 0, -8])
def test_an_image_size_that_the_patches_do_not_divide_is_refused(image_size: Any) -> None:
    with pytest.raises(VptError, match=r"not a multiple of the patch of sam_micro, 8x8; take \d+, for example$"):
        load_backbone("sam_micro", image_size=image_size)


# The official file, full size


@pytest.mark.slow
def test_a_full_size_file_loads_runs_at_1024_pixels_and_trains_at_256(tmp_path: Path) -> None:
    path = tmp_path / "sam_vit_b_random.pth"
    torch.manual_seed(0)
    state = sam_model_registry["vit_b"]().state_dict()
    for name, tensor in state.items():
        if "rel_pos" in name or name == "image_encoder.pos_embed":
            tensor.normal_(std=0.02)  # they start at zero
    torch.save(state, path)

    backbone: Any = load_backbone("sam_vit_b", weights=path)
    with torch.no_grad():
        grid = encode(backbone, DeepPrompts(backbone.spec, count=8), draw(backbone, batch=1)).grid
    assert grid.shape == (1, 256, 64, 64)
    assert torch.isfinite(grid).all()

    backbone = load_backbone("sam_vit_b", weights=path, image_size=256)
    assert isinstance(backbone, SamBackbone)
    prompts, head = DeepPrompts(backbone.spec, count=8), SamDecoderHead(backbone, classes=2, tune="tokens")
    model, images = PromptedModel(backbone, prompts, head), draw(backbone, batch=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.trained().values(), lr=1e-3)
    logits = model(images)
    logits.square().mean().backward()
    optimizer.step()

    assert logits.shape == (1, 2, 256, 256)
    assert model.count_parameters()["prompts"] == 73_728
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {"prompts.table.tokens", "head.class_tokens", "head.kernels.1.layers.0.weight"} <= changed
    assert changed <= set(model.trained())
    assert all(parameter.grad is None for parameter in backbone.parameters())
