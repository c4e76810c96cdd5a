"""SAM 2 and 2.1 by name: timm's image encoder, and the pyramid and decoder of the official checkpoints."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from segment_anything.modeling import PromptEncoder, TwoWayTransformer
from torch import Tensor, nn

from vpt.backbones.base import BackboneSpec, require_whole_patches
from vpt.backbones.fetch import cached, download
from vpt.backbones.origin import Origin
from vpt.backbones.renames import Renames, renamed, under_names
from vpt.backbones.sam import SamDecoder
from vpt.backbones.sam2 import Pyramid, Sam2Backbone, Sam2MaskDecoder, ends_of_stages
from vpt.backbones.sam2_weights import official_names
from vpt.backbones.sam_models import IMAGENET
from vpt.backbones.weights import RANDOM, SAM2_TRUNK, read_state, require_fit, require_numbers, sam2_trunk, sha256_of
from vpt.errors import VptError
from vpt.progress import Tick
from vpt.words import some_of

URL = "https://dl.fbaipublicfiles.com/segment_anything_2/"
NATIVE = 1024  # pixels, of every published SAM 2
STRIDE = 16  # pixels to a place of the image's embedding


@dataclass(frozen=True)
class Sam2Checkpoint:
    """architecture: timm's name of the image encoder; file: on the authors' server; origin: of the published weights.

    Their authors publish no hash of the files.
    """

    architecture: str
    file: str
    origin: Origin


def _published(size: str) -> dict[str, Sam2Checkpoint]:
    encoder = f"sam2_hiera_{size}"
    first, second = (Origin(f"SAM {version} (facebookresearch/sam2)", "Apache-2.0") for version in ("2", "2.1"))
    return {
        f"sam2.1_hiera_{size}": Sam2Checkpoint(encoder, f"092824/sam2.1_hiera_{size}.pt", second),
        f"sam2.0_hiera_{size}": Sam2Checkpoint(encoder, f"072824/{encoder}.pt", first),
    }


SAM2_CHECKPOINTS = {
    name: checkpoint
    for size in ("tiny", "small", "base_plus", "large")
    for name, checkpoint in _published(size).items()
}

OFFICIAL: Renames = (
    (r"^sam_(mask_decoder|prompt_encoder)\.", r"\1."),
    (r"^image_encoder\.neck\.convs\.(\d+)\.conv\.", r"pyramid.convs.\1."),
    (r"^no_mem_embed$", "pyramid.no_memory"),
    (r"^(mask_decoder\.transformer\.layers\.\d+\.mlp)\.layers\.0\.", r"\1.lin1."),
    (r"^(mask_decoder\.transformer\.layers\.\d+\.mlp)\.layers\.1\.", r"\1.lin2."),
)
# What serves to remember other images of a video.
MEMORY = re.compile(
    r"^(?:(?:memory_attention|memory_encoder|mask_downsample|obj_ptr_proj|obj_ptr_tpos_proj)\.|"
    r"(?:maskmem_tpos_enc|no_mem_pos_enc|no_obj_ptr|no_obj_embed_spatial)$)"
)
ENCODER = "image_encoder."
PATCHES = "patch_embed.proj.weight"


class Sam2(nn.Module):
    """The parts of SAM 2 that an image goes through.

    Args:
        hiera: timm's `HieraDet`; width: of the embedding; mlp, heads: of the decoder's two-way transformer.
    """

    def __init__(self, hiera: Any, *, width: int = 256, mlp: int = 2048, heads: int = 8):
        super().__init__()
        levels, widths = ends_of_stages(hiera)
        self.image_encoder = hiera
        self.pyramid = Pyramid(levels, widths, width)
        side = NATIVE // STRIDE
        self.prompt_encoder = PromptEncoder(width, (side, side), (NATIVE, NATIVE), mask_in_chans=16)
        transformer = TwoWayTransformer(depth=2, embedding_dim=width, mlp_dim=mlp, num_heads=heads)
        self.mask_decoder = Sam2MaskDecoder(width, transformer)


def is_sam2(name: str) -> bool:
    return name in SAM2_CHECKPOINTS


def origin_of_sam2(name: str) -> Origin:
    return SAM2_CHECKPOINTS[name].origin


def load_sam2(name: str, weights: str | Path | None, image_size: tuple[int, int] | None) -> Sam2Backbone:
    """SAM 2's image encoder, with the decoder of its checkpoint where that has one.

    Args:
        name: a key of `SAM2_CHECKPOINTS`; weights: a file or an address, None for the official file of that name
            (downloaded once), `"random"` for seeded random ones; image_size: (height, width) in pixels, None for 1024.

    Raises:
        VptError: weights that do not fit or cannot be had; a size that is not made of whole windows and patches.
    """
    path = None if weights == RANDOM else _file(name, weights)  # before anything is built
    sam, whole = build_sam2(SAM2_CHECKPOINTS[name].architecture), True
    if path is not None:
        whole = fill_sam2(sam, read_state(path), path, name)
    sha256 = sha256_of(sam if whole else sam.image_encoder)
    decoder = SamDecoder(sam.prompt_encoder, sam.mask_decoder, trained=weights != RANDOM, pyramid=sam.pyramid)
    return wrapped(sam.image_encoder, decoder if whole else None, name, sha256, image_size)


def describe_sam2(name: str, weights: str | Path | None) -> BackboneSpec:
    """The spec of `load_sam2` at its native size; a checkpoint of one's own has the same."""
    with torch.device("meta"):
        hiera = timm.create_model(SAM2_CHECKPOINTS[name].architecture, pretrained=False, num_classes=0)
        return wrapped(hiera, None, name, "", None).spec


def fetch_sam2(name: str, to: Path, progress: Tick) -> Path:
    """The official checkpoint of that name as a file in the folder `to`."""
    file = SAM2_CHECKPOINTS[name].file
    return download(URL + file, Path(to) / file.rpartition("/")[2], progress=progress)


def build_sam2(architecture: str, **sizes: Any) -> Sam2:
    """A `Sam2` with seeded random values, no generator is moved; sizes: see `Sam2`."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return Sam2(timm.create_model(architecture, pretrained=False, num_classes=0), **sizes)


def fill_sam2(sam: Sam2, state: dict[str, Tensor], path: Path, name: str) -> bool:
    """Load a checkpoint into the model, or into its encoder alone; whether there was a decoder.

    Raises:
        VptError: another model's checkpoint, or keys that are missing, left over or misshapen, each listed.
    """
    state = official_names(state)
    if not any(key.endswith(PATCHES) for key in state):
        raise VptError(
            f"{path}: no checkpoint of {name}: found {some_of(state)}; expected {SAM2_TRUNK}{PATCHES} and so "
            f"on, or the same in the names of transformers, as in {SAM2_CHECKPOINTS[name].file.rpartition('/')[2]}"
        )
    beside = _beside_trunk(state)
    trunk = {key: value for key, value in state.items() if key not in beside}
    found = {f"{ENCODER}{key}": value for key, value in sam2_trunk(trunk, sam.image_encoder).items()}
    remaining = ((key, state[key]) for key in sorted(beside) if not MEMORY.match(key))
    found |= under_names(remaining, lambda key: renamed(key, OFFICIAL), path)
    whole = any(key.startswith("mask_decoder.") for key in found)
    wanted = {key: value for key, value in sam.state_dict().items() if whole or key.startswith(ENCODER)}
    require_fit(wanted, found, path, name)
    require_numbers(wanted, found, path)
    sam.load_state_dict(found, strict=whole)
    return whole


def wrapped(
    hiera: Any, decoder: SamDecoder | None, name: str, sha256: str, image_size: tuple[int, int] | None
) -> Sam2Backbone:
    """The adapter over timm's model, set to a size of images."""
    size = image_size or (NATIVE, NATIVE)
    require_whole_patches(size, Sam2Backbone.patch_of(hiera), name)
    Sam2Backbone.resize(hiera, size)
    mean, std = IMAGENET
    return Sam2Backbone(hiera, decoder, name=name, mean=mean, std=std, sha256=sha256)


def _beside_trunk(state: dict[str, Tensor]) -> set[str]:
    """The keys of a whole SAM 2 that are of no block of its image encoder; of an encoder saved alone, none."""
    whole = any(key.startswith(SAM2_TRUNK) for key in state)
    return {key for key in state if whole and not key.startswith(SAM2_TRUNK)}


def _file(name: str, weights: str | Path | None) -> Path:
    if weights is None:
        return cached(URL + SAM2_CHECKPOINTS[name].file)
    return cached(str(weights)) if "://" in str(weights) else Path(weights)
