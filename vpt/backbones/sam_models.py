"""Segment Anything by name: official sizes, medical checkpoints, timm's encoders, and the embedded `sam_micro`."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from timm.layers import resample_abs_pos_embed_nhwc
from torch import Tensor, nn

from vpt.backbones.base import BackboneSpec
from vpt.backbones.fetch import Source, cached, download, hub_file
from vpt.backbones.origin import Origin
from vpt.backbones.sam import SamBackbone, SamDecoder
from vpt.backbones.sam_attention import Arithmetic
from vpt.backbones.sam_weights import POSITIONS, SamState, read_sam_state
from vpt.backbones.vit_models import micro_vit
from vpt.backbones.weights import RANDOM, require_fit, require_numbers, sha256_of
from vpt.progress import Tick
from vpt.words import some_of

PATCH = 16  # of every published SAM
SAM_MICRO = "sam_micro"
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
UNIT_RANGE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
TIMM = {"samvit_base_patch16": "b", "samvit_large_patch16": "l", "samvit_huge_patch16": "h"}


@dataclass(frozen=True)
class Size:
    """The encoder's dimensions; all other blocks than `global_blocks` are windowed."""

    width: int
    depth: int
    heads: int
    global_blocks: tuple[int, ...]


SIZES = {
    "b": Size(768, 12, 12, (2, 5, 8, 11)),
    "l": Size(1024, 24, 16, (5, 11, 17, 23)),
    "h": Size(1280, 32, 16, (7, 15, 23, 31)),
}


@dataclass(frozen=True)
class Checkpoint:
    """What a file does not say: its size, the images it was trained on (pixels; mean and deviation of [0, 1]).

    origin: of the published weights of that name.
    """

    size: str
    origin: Origin
    image_size: int = 1024
    normalisation: tuple[tuple[float, float, float], tuple[float, float, float]] = IMAGENET


META = Origin("Segment Anything (facebookresearch/segment-anything)", "Apache-2.0")
CHECKPOINTS = {
    "sam_vit_b": Checkpoint("b", META),
    "sam_vit_l": Checkpoint("l", META),
    "sam_vit_h": Checkpoint("h", META),
    "medsam_vit_b": Checkpoint("b", Origin("MedSAM (bowang-lab/MedSAM)", "Apache-2.0"), normalisation=UNIT_RANGE),
    "sam_med2d_vit_b": Checkpoint("b", Origin("SAM-Med2D (OpenGVLab/SAM-Med2D)", "Apache-2.0"), image_size=256),
}


# The official files (segment-anything, "Model Checkpoints"); the digits in their names begin their MD5.
SAM_URL = "https://dl.fbaipublicfiles.com/segment_anything/"
SOURCES = {
    "sam_vit_b": Source(f"{SAM_URL}sam_vit_b_01ec64.pth", "01ec64d29a2fca3f0661936605ae66f8", 375_042_383),
    "sam_vit_l": Source(f"{SAM_URL}sam_vit_l_0b3195.pth", "0b3195507c641ddb6910d2bb5adee89c", 1_249_524_607),
    "sam_vit_h": Source(f"{SAM_URL}sam_vit_h_4b8939.pth", "4b8939a88964f0f4ff5f5b2642c598a6", 2_564_550_879),
}


def _checkpoint(name: str) -> Checkpoint:
    return CHECKPOINTS.get(name) or Checkpoint(TIMM[name.partition(".")[0]], META)


def origin_of_sam(name: str) -> Origin:
    return _checkpoint(name).origin


def is_sam(name: str) -> bool:
    return name in CHECKPOINTS or name.partition(".")[0] in TIMM


def checkpoint_file(name_or_url: str) -> Path:
    """The file with the weights of that name or address, downloaded once.

    Raises:
        VptError: no address known for the name, no network, no space, or a file that is not what it should be.
    """
    for name, source in SOURCES.items():
        if name_or_url in (name, source.url):
            return cached(source.url, source)
    return cached(name_or_url) if "://" in name_or_url else hub_file(name_or_url)


def fetch_sam(name: str, to: Path, progress: Tick) -> Path:
    """The checkpoint of that name as a file in the folder `to`."""
    if source := SOURCES.get(name):
        return download(source.url, to / source.filename, md5=source.md5, progress=progress)
    return download(hub_file(name).as_uri(), to / f"{name}.safetensors", progress=progress)


def describe_sam(name: str, weights: str | Path | None, attention: Arithmetic = "fused") -> BackboneSpec:
    """The spec of `load_sam` at its native size, which a checkpoint of one's own may have changed."""
    checkpoint = _checkpoint(name)
    native = checkpoint.image_size
    if weights not in (None, RANDOM):
        native = PATCH * _read(name, weights)[1].tensors[POSITIONS].shape[1]
    with torch.device("meta"):
        encoder = build_sam(SIZES[checkpoint.size], native).image_encoder
        return _backbone(encoder, None, name, checkpoint, "", (native, native), attention).spec


def describe_sam_micro(name: str, weights: str | Path | None, attention: Arithmetic = "fused") -> BackboneSpec:
    return load_sam_micro(name, RANDOM, None, attention).spec


def load_sam(
    name: str, weights: str | Path | None, image_size: tuple[int, int] | None, attention: Arithmetic = "fused"
) -> SamBackbone:
    """A SAM encoder, with the decoder of its checkpoint where that has one.

    Args:
        name: a key of `CHECKPOINTS`, or timm's name of an encoder; weights: a file or an address, None for the
            pretrained ones of that name (downloaded once), `"random"` for seeded random ones;
        image_size: (height, width) in pixels, None for the native size; attention: see `SamBackbone`.

    Raises:
        VptError: weights that do not fit or cannot be had; a size that is no multiple of the patch.
    """
    checkpoint = _checkpoint(name)
    native, whole = checkpoint.image_size, True
    if weights == RANDOM:
        sam = build_sam(SIZES[checkpoint.size], native)
    else:
        path, state = _read(name, weights)
        native, whole = PATCH * state.tensors[POSITIONS].shape[1], state.has_decoder
        sam = build_sam(SIZES[checkpoint.size], native)
        _fill(sam, state, path, name)
    decoder = SamDecoder(sam.prompt_encoder, sam.mask_decoder, trained=weights != RANDOM) if whole else None
    sha256 = sha256_of(sam if whole else sam.image_encoder)
    return _backbone(sam.image_encoder, decoder, name, checkpoint, sha256, image_size or (native, native), attention)


def _backbone(
    encoder: ImageEncoderViT,
    decoder: SamDecoder | None,
    name: str,
    checkpoint: Checkpoint,
    sha256: str,
    image_size: tuple[int, int],
    attention: Arithmetic,
) -> SamBackbone:
    mean, std = checkpoint.normalisation
    return SamBackbone(
        encoder,
        decoder,
        name=name,
        mean=mean,
        std=std,
        padding="corner",
        sha256=sha256,
        image_size=image_size,
        attention=attention,
    )


def load_sam_micro(
    name: str, weights: str | Path | None, image_size: tuple[int, int] | None, attention: Arithmetic = "fused"
) -> SamBackbone:
    """A small SAM (128 px, patch 8) that starts from `vit_micro`, as SAM itself started from a plain ViT.

    Patch embedding, position embedding (resized) and blocks are the ViT's; every second block attends in windows of
    8x8 patches; tables of relative positions are zero; the neck passes the tokens on, normalised. The CLS token is left
    out. The decoder is random (seeded), to be trained whole.
    """
    vit: Any = micro_vit(weights)
    size = Size(vit.embed_dim, len(vit.blocks), vit.blocks[0].attn.num_heads, tuple(range(1, len(vit.blocks), 2)))
    sam = build_sam(size, 128, patch=vit.patch_embed.patch_size[0], window=8, neck=vit.embed_dim, mlp=256, heads=4)
    _start_from(sam.image_encoder, vit)
    return SamBackbone(
        sam.image_encoder,
        SamDecoder(sam.prompt_encoder, sam.mask_decoder, trained=False),
        name=SAM_MICRO,
        mean=vit.pretrained_cfg["mean"],
        std=vit.pretrained_cfg["std"],
        padding="corner",
        sha256=sha256_of(sam),
        image_size=image_size or (128, 128),
        attention=attention,
    )


def build_sam(
    size: Size,
    image_size: int,
    *,
    patch: int = PATCH,
    window: int = 14,
    neck: int = 256,
    mlp: int = 2048,
    heads: int = 8,
) -> Sam:
    """SAM of `segment_anything`'s modules with seeded random values; torch's own generators are left as they were.

    `mlp` and `heads` are those of the decoder's two-way transformer, `neck` is its width.
    """
    grid = image_size // patch
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        encoder = ImageEncoderViT(
            img_size=image_size,
            patch_size=patch,
            embed_dim=size.width,
            depth=size.depth,
            num_heads=size.heads,
            out_chans=neck,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=window,
            global_attn_indexes=size.global_blocks,
        )
        transformer = TwoWayTransformer(depth=2, embedding_dim=neck, mlp_dim=mlp, num_heads=heads)
        return Sam(
            encoder,
            PromptEncoder(neck, (grid, grid), (image_size, image_size), mask_in_chans=16),
            MaskDecoder(transformer_dim=neck, transformer=transformer),
        )


def _read(name: str, weights: str | Path | None) -> tuple[Path, SamState]:
    address = str(weights or name)
    path = Path(address) if weights is not None and "://" not in address else checkpoint_file(address)
    state = read_sam_state(path, name)
    if state.skipped:
        warnings.warn(
            f"{path}: {some_of(state.skipped)} are adapters, which {name} has no place for; they are left out, so its "
            "features are not those that the checkpoint's authors report",
            stacklevel=2,
        )
    return path, state


def _fill(sam: Sam, state: SamState, path: Path, name: str) -> None:
    """Load a checkpoint into the model; of a file that holds an encoder only, into the encoder."""
    wanted = sam.state_dict()
    if not state.has_decoder:
        wanted = {key: value for key, value in wanted.items() if key.startswith("image_encoder.")}
    require_fit(wanted, state.tensors, path, name)
    require_numbers(wanted, state.tensors, path)
    sam.load_state_dict(state.tensors, strict=state.has_decoder)


def _start_from(encoder: ImageEncoderViT, vit: Any) -> None:
    """Copy a plain ViT's patches, positions and blocks into the encoder; make its neck pass the tokens on."""
    renamed: dict[str, Tensor] = {}
    for key, value in vit.state_dict().items():
        if key.startswith(("blocks.", "patch_embed.")):
            renamed[key.replace(".mlp.fc", ".mlp.lin")] = value
    grid = vit.patch_embed.grid_size
    positions = vit.pos_embed[:, vit.num_prefix_tokens :].unflatten(1, grid)
    renamed["pos_embed"] = resample_abs_pos_embed_nhwc(positions, list(encoder.pos_embed.shape[1:3]))
    narrow, norm, wide, _ = encoder.neck
    for kernel in (narrow, wide):
        nn.init.dirac_(kernel.weight)
    norm.load_state_dict(vit.norm.state_dict())
    missing, unexpected = encoder.load_state_dict(renamed, strict=False)
    assert not unexpected
    assert all("rel_pos" in key or key.startswith("neck.") for key in missing)
