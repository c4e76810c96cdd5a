"""Segment Anything checkpoints: every layout gives the official tensors; what is none is refused with the reason."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from timm.models import VisionTransformer, VisionTransformerSAM
from torch import Tensor

from vpt.backbones.sam_weights import SamState, read_sam_state
from vpt.errors import VptError

NAME = "sam_vit_b"
State = dict[str, Tensor]
SIZE: dict[str, Any] = {
    "patch_size": 8,
    "embed_dim": 16,
    "depth": 2,
    "num_heads": 2,
    "window_size": 3,
    "global_attn_indexes": (1,),
    "use_rel_pos": True,
}


def make_sam(image_size: int = 32) -> Sam:
    """A SAM of two blocks, the first windowed, with every tensor random."""
    torch.manual_seed(1)
    encoder = ImageEncoderViT(img_size=image_size, out_chans=32, **SIZE)
    grid = (image_size // 8, image_size // 8)
    prompts = PromptEncoder(
        embed_dim=32, image_embedding_size=grid, input_image_size=(image_size, image_size), mask_in_chans=16
    )
    two_way = TwoWayTransformer(depth=2, embedding_dim=32, mlp_dim=64, num_heads=2)
    sam = Sam(encoder, prompts, MaskDecoder(transformer_dim=32, transformer=two_way))
    with torch.no_grad():
        for tensor in sam.state_dict().values():
            tensor.normal_()
    return sam


@pytest.fixture(scope="module")
def sam() -> Sam:
    return make_sam()


@pytest.fixture
def official(sam: Sam) -> State:
    return {key: tensor.clone() for key, tensor in sam.state_dict().items()}


def same(left: State, right: State) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def encoder_of(state: State) -> State:
    return {key: tensor for key, tensor in state.items() if key.startswith("image_encoder.")}


def read(path: Path, content: Any) -> SamState:
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    return read_sam_state(path, NAME)


# The official layout, as it is and as trainings wrap it


def training(state: State, prefix: str = "") -> dict[str, Any]:
    """What MedSAM's training saves: the optimiser's state dict beside the model's."""
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([parameter])
    parameter.sum().backward()
    optimizer.step()
    return {
        "model": {prefix + key: tensor for key, tensor in state.items()},
        "optimizer": optimizer.state_dict(),
        "epoch": 7,
    }


WRAPPED: dict[str, Callable[[State], Any]] = {
    "plain": lambda state: state,
    "model": lambda state: {"model": state},
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "training": training,
    "training by DDP": lambda state: training(state, "module."),
    "DDP": lambda state: {f"module.{key}": tensor for key, tensor in state.items()},
    "Lightning": lambda state: {"state_dict": {f"model.{key}": tensor for key, tensor in state.items()}},
    "part of a model": lambda state: {"model_state": {f"sam.{key}": tensor for key, tensor in state.items()}},
    "all of it": lambda state: {"model": {"state_dict": {f"module.model.sam.{key}": t for key, t in state.items()}}},
    "constants of the images": lambda state: state | {"pixel_mean": torch.ones(3, 1, 1), "pixel_std": torch.ones(3)},
}


@pytest.mark.parametrize("wrap", WRAPPED)
def test_the_official_layout_is_read_however_it_is_wrapped(tmp_path: Path, official: State, wrap: str) -> None:
    state = read(tmp_path / "sam.pth", WRAPPED[wrap](official))

    assert same(state.tensors, official)
    assert (state.skipped, state.has_decoder) == ((), True)
    make_sam().load_state_dict(state.tensors, strict=True)


def test_an_official_encoder_saved_alone(tmp_path: Path, sam: Sam, official: State) -> None:
    state = read(tmp_path / "encoder.pth", sam.image_encoder.state_dict())

    assert same(state.tensors, encoder_of(official))
    assert not state.has_decoder


# SAM-Med2D


def adapters(block: int, width: int = 16) -> State:
    """The adapter of one of its blocks: a norm, a gate over channels, two convolutions."""
    shapes = {
        "norm.weight": (width,),
        "norm.bias": (width,),
        "channel.0.weight": (width // 4, width),
        "channel.2.weight": (width, width // 4),
        "spatial.0.weight": (width, width, 3, 3),
        "spatial.2.weight": (width, width, 4, 4),
    }
    return {f"image_encoder.blocks.{block}.Adapter.{key}": torch.randn(shape) for key, shape in shapes.items()}


def test_sam_med2d_loses_its_adapters_and_says_which(tmp_path: Path) -> None:
    """Its training saves the optimiser itself, not its state dict; its image is smaller."""
    small = make_sam(16)
    extra = adapters(0) | adapters(1)
    optimizer = torch.optim.Adam(small.parameters(), lr=1e-4)
    for parameter in small.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    expected = {key: tensor.clone() for key, tensor in small.state_dict().items()}

    state = read(tmp_path / "sam-med2d_b.pth", {"model": small.state_dict() | extra, "optimizer": optimizer})

    assert same(state.tensors, expected)
    assert state.tensors["image_encoder.pos_embed"].shape == (1, 2, 2, 16)
    assert state.skipped == tuple(sorted(extra))
    make_sam(16).load_state_dict(state.tensors, strict=True)


def test_other_adapters_are_skipped_too(tmp_path: Path, official: State) -> None:
    extra = {"image_encoder.blocks.1.MLP_Adapter.D_fc1.weight": torch.ones(4, 16)}

    state = read(tmp_path / "adapted.pth", official | extra)

    assert same(state.tensors, official)
    assert state.skipped == tuple(extra)


def test_keys_that_no_sam_has_are_kept_for_the_caller_to_refuse(tmp_path: Path, official: State) -> None:
    extra = {"mask_decoder.hf_token.weight": torch.ones(1, 32), "text_encoder.weight": torch.ones(2)}

    assert same(read(tmp_path / "hq.pth", official | extra).tensors, official | extra)


# timm


def make_timm() -> VisionTransformerSAM:
    return VisionTransformerSAM(img_size=32, neck_chans=32, num_classes=0, **SIZE)


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_timms_encoder(tmp_path: Path, official: State, file: str) -> None:
    """The keys are timm's own; the tensors come back under the official names and fit the official model."""
    vit = make_timm()
    own = {key.removeprefix("image_encoder.").replace(".lin", ".fc"): t for key, t in encoder_of(official).items()}
    vit.load_state_dict(own, strict=True)

    state = read(tmp_path / file, vit.state_dict())

    assert same(state.tensors, encoder_of(official))
    assert (state.skipped, state.has_decoder) == ((), False)
    encoder = {key.removeprefix("image_encoder."): tensor for key, tensor in state.tensors.items()}
    make_sam().image_encoder.load_state_dict(encoder, strict=True)


def test_timms_encoder_computes_the_same_in_the_official_model(tmp_path: Path) -> None:
    vit = make_timm().eval()
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.normal_(std=0.2)
    tensors = read(tmp_path / "timm.pth", vit.state_dict()).tensors
    encoder = make_sam().image_encoder.eval()
    encoder.load_state_dict({key.removeprefix("image_encoder."): tensor for key, tensor in tensors.items()})
    for norm in (module for module in encoder.modules() if isinstance(module, torch.nn.LayerNorm)):
        norm.eps = next(module.eps for module in vit.modules() if isinstance(module, torch.nn.LayerNorm))
    images = torch.randn(2, 3, 32, 32)

    with torch.no_grad():
        torch.testing.assert_close(encoder(images), vit.forward_features(images), atol=1e-5, rtol=1e-4)


# Hugging Face transformers


# Every name of SamModel's state dict that differs, official -> transformers, once per place: N stands for a number.
TRANSFORMERS = {
    "image_encoder.pos_embed": "vision_encoder.pos_embed",
    "image_encoder.patch_embed.proj": "vision_encoder.patch_embed.projection",
    "image_encoder.blocks.N.norm1": "vision_encoder.layers.N.layer_norm1",
    "image_encoder.blocks.N.norm2": "vision_encoder.layers.N.layer_norm2",
    "image_encoder.blocks.N.attn.qkv": "vision_encoder.layers.N.attn.qkv",
    "image_encoder.blocks.N.attn.proj": "vision_encoder.layers.N.attn.proj",
    "image_encoder.blocks.N.attn.rel_pos_h": "vision_encoder.layers.N.attn.rel_pos_h",
    "image_encoder.blocks.N.attn.rel_pos_w": "vision_encoder.layers.N.attn.rel_pos_w",
    "image_encoder.blocks.N.mlp.lin1": "vision_encoder.layers.N.mlp.lin1",
    "image_encoder.blocks.N.mlp.lin2": "vision_encoder.layers.N.mlp.lin2",
    "image_encoder.neck.0": "vision_encoder.neck.conv1",
    "image_encoder.neck.1": "vision_encoder.neck.layer_norm1",
    "image_encoder.neck.2": "vision_encoder.neck.conv2",
    "image_encoder.neck.3": "vision_encoder.neck.layer_norm2",
    "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix": "shared_image_embedding.positional_embedding",
    "prompt_encoder.point_embeddings.N": "prompt_encoder.point_embed.N",
    "prompt_encoder.not_a_point_embed": "prompt_encoder.not_a_point_embed",
    "prompt_encoder.no_mask_embed": "prompt_encoder.no_mask_embed",
    "prompt_encoder.mask_downscaling.0": "prompt_encoder.mask_embed.conv1",
    "prompt_encoder.mask_downscaling.1": "prompt_encoder.mask_embed.layer_norm1",
    "prompt_encoder.mask_downscaling.3": "prompt_encoder.mask_embed.conv2",
    "prompt_encoder.mask_downscaling.4": "prompt_encoder.mask_embed.layer_norm2",
    "prompt_encoder.mask_downscaling.6": "prompt_encoder.mask_embed.conv3",
    "mask_decoder.iou_token": "mask_decoder.iou_token",
    "mask_decoder.mask_tokens": "mask_decoder.mask_tokens",
    "mask_decoder.transformer.layers.N.norm1": "mask_decoder.transformer.layers.N.layer_norm1",
    "mask_decoder.transformer.layers.N.norm2": "mask_decoder.transformer.layers.N.layer_norm2",
    "mask_decoder.transformer.layers.N.norm3": "mask_decoder.transformer.layers.N.layer_norm3",
    "mask_decoder.transformer.layers.N.norm4": "mask_decoder.transformer.layers.N.layer_norm4",
    "mask_decoder.transformer.layers.N.mlp.lin1": "mask_decoder.transformer.layers.N.mlp.lin1",
    "mask_decoder.transformer.layers.N.mlp.lin2": "mask_decoder.transformer.layers.N.mlp.lin2",
    "mask_decoder.transformer.norm_final_attn": "mask_decoder.transformer.layer_norm_final_attn",
    "mask_decoder.output_upscaling.0": "mask_decoder.upscale_conv1",
    "mask_decoder.output_upscaling.1": "mask_decoder.upscale_layer_norm",
    "mask_decoder.output_upscaling.3": "mask_decoder.upscale_conv2",
    "mask_decoder.output_hypernetworks_mlps.N.layers.0": "mask_decoder.output_hypernetworks_mlps.N.proj_in",
    "mask_decoder.output_hypernetworks_mlps.N.layers.1": "mask_decoder.output_hypernetworks_mlps.N.layers.0",
    "mask_decoder.output_hypernetworks_mlps.N.layers.2": "mask_decoder.output_hypernetworks_mlps.N.proj_out",
    "mask_decoder.iou_prediction_head.layers.0": "mask_decoder.iou_prediction_head.proj_in",
    "mask_decoder.iou_prediction_head.layers.1": "mask_decoder.iou_prediction_head.layers.0",
    "mask_decoder.iou_prediction_head.layers.2": "mask_decoder.iou_prediction_head.proj_out",
} | {
    f"mask_decoder.transformer.{attention}.{layer}_proj": f"mask_decoder.transformer.{attention}.{layer}_proj"
    for layer in ("q", "k", "v", "out")
    for attention in (
        "layers.N.self_attn",
        "layers.N.cross_attn_token_to_image",
        "layers.N.cross_attn_image_to_token",
        "final_attn_token_to_image",
    )
}  # fmt: skip
SHARED = "shared_image_embedding.positional_embedding"
SHARED_TOO = "prompt_encoder.shared_embedding.positional_embedding"


def to_transformers(state: State) -> State:
    """Official -> transformers, key by key through the list above; a key that it lacks is an error."""
    renamed = {}
    for key, tensor in state.items():
        stem, ending = re.fullmatch(r"(.*?)((?:\.weight|\.bias)?)", key).groups()
        if stem in TRANSFORMERS:
            name = TRANSFORMERS[stem]
        else:
            number = re.search(r"\.(\d+)(?=\.|$)", stem)
            name = TRANSFORMERS[stem[: number.start(1)] + "N" + stem[number.end(1) :]].replace("N", number.group(1))
        renamed[name + ending] = tensor
    return renamed


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("users", [(SHARED,), (SHARED_TOO,), (SHARED, SHARED_TOO)])
def test_transformers_sam_model(tmp_path: Path, official: State, file: str, users: tuple[str, ...]) -> None:
    """The table of frequencies has two users and may be saved under either name, or both."""
    theirs = to_transformers(official)
    frequencies = theirs.pop(SHARED)
    assert len(theirs) + 1 == len(official)

    state = read(tmp_path / file, theirs | {user: frequencies.clone() for user in users})

    assert same(state.tensors, official)
    assert (state.skipped, state.has_decoder) == ((), True)
    make_sam().load_state_dict(state.tensors, strict=True)


def test_transformers_vision_model_is_an_encoder_alone(tmp_path: Path, official: State) -> None:
    state = read(tmp_path / "vision.pth", to_transformers(encoder_of(official)))

    assert same(state.tensors, encoder_of(official))
    assert not state.has_decoder


def test_two_tensors_for_one_place_are_refused(tmp_path: Path, official: State) -> None:
    theirs = to_transformers(official)
    theirs[SHARED_TOO] = theirs[SHARED] + 1

    with pytest.raises(VptError, match=r"two\.pth: holds two different tensors for prompt_encoder\.pe_layer\."):
        read(tmp_path / "two.pth", theirs)


# Refusals


@pytest.mark.parametrize("key", ["image_encoder.patch_embed.proj.weight", "image_encoder.pos_embed"])
def test_a_3d_checkpoint_is_refused_with_the_reason(tmp_path: Path, official: State, key: str) -> None:
    """As SAM-Med3D saves it, with a training's arguments and scores beside it."""
    solid = {key: official[key].unsqueeze(2)}
    content = {"epoch": 1, "model_state_dict": official | solid, "args": Namespace(lr=0.1), "used_datas": ["liver"]}
    shape = re.escape(str(tuple(solid[key].shape)))

    with pytest.raises(VptError, match=rf"3d\.pth: a 3D checkpoint, .*: {key} is {shape}, expected four .*sam_vit_b"):
        read(tmp_path / "3d.pth", content)


def no_sam(kind: str, official: State) -> State:
    match kind:
        case "plain ViT":
            return VisionTransformer(img_size=32, patch_size=8, embed_dim=16, depth=1, num_heads=2).state_dict()
        case "decoder alone":
            return {key: tensor for key, tensor in official.items() if key.startswith("mask_decoder.")}
        case "SAM 2":
            return {"image_encoder.trunk.pos_embed": torch.ones(1), "sam_mask_decoder.iou_token.weight": torch.ones(1)}
        case "MobileSAM":
            return {"image_encoder.patch_embed.seq.0.c.weight": torch.ones(1)}
    return {"conv1.weight": torch.ones(1)}


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("plain ViT", r"blocks\.0\.attn.* and \d+ more"),
        ("decoder alone", r"mask_decoder\.iou_.* and \d+ more"),
        ("SAM 2", r"image_encoder\.trunk\.pos_embed, sam_mask_decoder\.iou_token\.weight"),
        ("MobileSAM", r"image_encoder\.patch_embed\.seq"),
        ("ResNet", r"conv1\.weight"),
    ],
)
def test_what_is_no_sam_is_refused_with_its_keys(tmp_path: Path, official: State, kind: str, found: str) -> None:
    expected = r"expected image_encoder\.patch_embed\.proj\.weight, .*; give a file such as sam_vit_b_01ec64\.pth"

    with pytest.raises(
        VptError, match=rf"other\.pth: no Segment Anything checkpoint for {NAME}: found .*{found}.*; {expected}"
    ) as refusal:
        read(tmp_path / "other.pth", no_sam(kind, official))
    assert "\n" not in str(refusal.value)


def test_a_missing_file_and_one_without_tensors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VptError, match=r"none\.pth: no such file"):
        read_sam_state(tmp_path / "none.pth", NAME)
    with pytest.raises(VptError, match=r"empty\.pth: holds no tensors"):
        read(tmp_path / "empty.pth", {"model": {}, "epoch": 1})


@pytest.mark.parametrize("shape", [(1, 16, 16), (1, 4, 8, 16)], ids=["flat", "oblong"])
def test_positions_that_are_no_square_are_refused_before_a_model_is_built_by_them(
    tmp_path: Path, official: State, shape: tuple[int, ...]
) -> None:
    torch.save(official | {"image_encoder.pos_embed": torch.zeros(shape)}, tmp_path / "sam.pth")
    with pytest.raises(VptError, match=r"sam\.pth: does not fit sam_vit_b: image_encoder\.pos_embed is .*a square of"):
        read_sam_state(tmp_path / "sam.pth", NAME)
